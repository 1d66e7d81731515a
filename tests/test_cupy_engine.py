"""What the laws do not see of the `cupy` engine: that it never waits, where it works, and every way it may choose.

On a GPU, or with `PYTHONPATH=tests/emulated`; elsewhere reported as skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
from cupy_calls import EMULATED, on_device
from targets import TestTarget

import xpconv
from xpconv import nn, notices, ops
from xpconv.cli import main
from xpconv.dispatch import EngineError, registered
from xpconv.engines import cupy as engine
from xpconv.engines import portable
from xpconv.engines.cupy import choice, compiled
from xpconv.parity import CASES, case_of, joined, measure, serves

cupy = pytest.importorskip("cupy")

TARGET = TestTarget("cupy", "cupy")
EVERY = [
    pytest.param(case, sample, id=f"{case.name}-{sample.name}")
    for case in CASES
    for sample in case.samples
    if serves(case, sample, TARGET)
]
CONVOLUTIONS = [p for p in EVERY if p.values[0].op in (ops.conv, ops.conv_transpose)]
A_FEW = [next(p for p in EVERY if p.values[0] is case) for case in CASES if serves(case, case.samples[0], TARGET)]
on_every = pytest.mark.parametrize(("case", "sample"), EVERY)
on_convolutions = pytest.mark.parametrize(("case", "sample"), CONVOLUTIONS)
on_a_few = pytest.mark.parametrize(("case", "sample"), A_FEW)


def pulled_back(case, sample, dtype="float32", device=None):
    """Results and gradients of a call, all on the device."""
    arrays = {name: on_device(x, device) for name, x in sample.draw("random", dtype).items()}
    with xpconv.use_engine(*TARGET.chain):
        y, pullback = xpconv.vjp(case.op, **arrays, **sample.options)
    results = y if isinstance(y, tuple) else (y,)
    with results[0].device:
        dy = cupy.ones(results[0].shape, dtype=results[0].dtype)
    return (*results, *(g for g in pullback(dy) if g is not None))


def within_the_bound(case, sample, dtypes=("float32", "float16")):
    for dtype in dtypes:
        for name, error in measure(case, sample, TARGET, dtype).items():
            assert error <= 1, f"{name} in {dtype}: {error:.3g} times the bound"


@pytest.mark.parametrize("other", ["_columns", "_shifted"])
def test_a_norm_is_applied_to_sums_that_are_not_rounded_whatever_the_way(other, monkeypatch):
    dear = choice.Way("dear", 1e9, 1, 1)
    monkeypatch.setattr(choice, other, lambda *args: dear)
    row = joined.check(TARGET)
    assert row.ok, row.misses()
    assert (row.calls, row.declined) == (4 * len(joined.SAMPLES), 0)


@pytest.mark.skipif(not EMULATED, reason="waiting is counted by the emulated CuPy only")
@on_every
def test_no_call_waits_for_the_device(case, sample):
    arrays = {name: on_device(x) for name, x in sample.draw("random", "float32").items()}
    dy = [cupy.ones(y.shape, dtype=y.dtype) for y in pulled_back(case, sample)[:1]]
    before = cupy.emulation.counts["synchronisations"]
    with xpconv.use_engine(*TARGET.chain):
        _, pullback = xpconv.vjp(case.op, **arrays, **sample.options)
        pullback(*dy)
    assert cupy.emulation.counts["synchronisations"] == before


@pytest.mark.skipif(cupy.cuda.runtime.getDeviceCount() < 2, reason="takes two devices")
@on_a_few
def test_work_is_done_where_the_arrays_are(case, sample):
    """Also where another device is the current one, as it is here."""
    here, there = pulled_back(case, sample, device=0), pulled_back(case, sample, device=1)
    for a, b in zip(here, there, strict=True):
        assert b.device == cupy.cuda.Device(1)
        np.testing.assert_array_equal(a.get(), b.get())


@on_convolutions
@pytest.mark.parametrize("way", ["shifted", "columns"])
def test_every_way_of_convolving_is_right(case, sample, way, monkeypatch):
    """Also those that these small samples would not choose."""
    other = {"shifted": "_columns", "columns": "_shifted"}[way]
    dear = choice.Way("too dear", np.inf, 1, 1)
    monkeypatch.setattr(choice, other, lambda *args: dear)
    if way == "shifted":
        monkeypatch.setattr(choice, "_shares", lambda *args: dear)
        window = registered(case.op).bind(**sample.draw(), **sample.options).window
        if any(s > 1 for s in window.stride) or all(k == 1 for k in window.kernel):
            pytest.skip("products are shifted at stride 1, of kernels of several cells")
    within_the_bound(case, sample)


@on_convolutions
def test_convolution_in_the_smallest_pieces(case, sample):
    whole = pulled_back(case, sample)
    with xpconv.workspace_limit(1):
        pieces = pulled_back(case, sample)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(b.get(), a.get(), rtol=1e-5, atol=1e-5 * np.abs(a.get()).max(initial=1))


@on_a_few
def test_64_bit_indices_and_long_strides(case, sample, monkeypatch):
    monkeypatch.setattr(compiled, "_WIDE_FROM", 0)
    monkeypatch.setattr(compiled, "_MOST_BLOCKS", 1)
    within_the_bound(case, sample, ("float32",))


class Largest:
    """In the place of the size from which indices have 64 bits: hears which size each kernel is asked for with."""

    def __gt__(self, largest):
        self.heard = largest
        return True


@on_every
def test_indices_are_wide_enough_for_every_array_of_a_launch(case, sample, monkeypatch):
    """Kernels are not run: whether an index overflows would show in arrays of gigabytes alone."""
    limit = Largest()

    def kernel(device, module, name, dtype, index, width):
        def launched(grid, block, args):
            sizes = [arg.size for arg in args if isinstance(arg, cupy.ndarray)]
            assert limit.heard >= max(sizes), f"{module}.{name}: {sizes} with indices for {limit.heard}"

        return launched

    monkeypatch.setattr(compiled, "_WIDE_FROM", limit)
    monkeypatch.setattr(compiled, "_kernel", kernel)
    pulled_back(case, sample)


@on_a_few
def test_runs_repeat_to_the_bit(case, sample):
    for a, b in zip(pulled_back(case, sample), pulled_back(case, sample), strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


@on_a_few
def test_a_captured_call_gives_the_same_when_replayed(case, sample):
    """Nothing in a call is for the host alone: a graph runs all of it."""
    arrays = {name: on_device(x) for name, x in sample.draw("random", "float32").items()}
    eager = pulled_back(case, sample)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, xpconv.use_engine(*TARGET.chain):
        dy = cupy.ones(eager[0].shape, dtype=eager[0].dtype)
        stream.synchronize()
        stream.begin_capture()
        y, pullback = xpconv.vjp(case.op, **arrays, **sample.options)
        captured = (*(y if isinstance(y, tuple) else (y,)), *(g for g in pullback(dy) if g is not None))
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    for a, b in zip(eager, captured, strict=True):
        np.testing.assert_array_equal(b.get(), a.get())


def test_complex_weights_are_laid_out_by_each_stream_and_by_a_graph_at_each_replay():
    """What another stream has made would not be waited for, and what a graph will make is not there yet."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with xpconv.use_backend("cupy"), xpconv.use_engine("cupy"):
        x = cupy.asarray(np.random.default_rng(0).standard_normal((1, 4, 5, 2, 2))).view("complex128")[..., 0]
        layer = nn.Conv2d(2, 3, 3).to(dtype="complex128").initialize(seed=0)
        layer(x)
        with stream:
            layer.vjp(x)[1](layer(x))
            assert len(layer.weight.packed) == 2
            stream.begin_capture()
            y, pullback = layer.vjp(x)
            dx = pullback(y)
            graph = stream.end_capture()
        layer.weight.assign(layer.weight.value * 1j)
        graph.launch(stream)
        stream.synchronize()
        same, pullback = layer.vjp(x)
        np.testing.assert_array_equal(y.get(), same.get())
        np.testing.assert_array_equal(dx.get(), pullback(same).get())


def test_a_response_norm_of_longer_rows_is_left_to_others():
    answers = [xpconv.explain(ops.local_response_norm, cupy.ones((1, n)), 5) for n in (2048, 2049)]
    assert answers[0]["cupy"] == "chosen: local_response_norm"
    assert answers[1]["cupy"] == "takes rows of at most 2048 channels"
    assert answers[1]["portable"] == "chosen: local_response_norm"


def test_explain_tells_the_way_and_its_cost():
    x, w = (on_device(np.ones(shape, np.float32)) for shape in ((8, 56, 56, 64), (3, 3, 64, 64)))
    with xpconv.use_engine("cupy"):
        told = xpconv.explain(ops.conv, x, w, padding=1)["cupy"]
        plain = xpconv.explain(ops.conv, x, w[:1, :1])["cupy"]
    assert told.startswith("chosen: conv_fprop (")
    assert "MiB moved in" in told
    assert "one product" in plain


def test_other_libraries_arrays_are_declined():
    with xpconv.use_engine("cupy"), pytest.raises(EngineError, match="cupy is not for arrays of numpy"):
        ops.relu(np.ones(3, np.float32))


# Forward and gradients of these come from this engine in every sample but those it declines in words.
SERVED = (
    *("conv", "conv_transpose", "linear"),
    *("max_pool", "avg_pool", "lp_pool", "max_unpool", "global_avg_pool", "global_max_pool"),
    *("batch_norm", "layer_norm", "instance_norm", "group_norm"),
    *("relu", "relu6", "leaky_relu", "silu", "sigmoid", "tanh", "softplus", "elu", "gelu"),
    *("hard_swish", "hard_sigmoid", "clip", "softmax", "log_softmax", "softmax_cross_entropy", "dropout"),
    *("add", "prelu", "mse", "binary_cross_entropy_with_logits", "pad", "resize", "local_response_norm"),
)


@pytest.mark.parametrize("name", SERVED)
def test_whole_calls_are_served(name):
    served = 0
    samples = [s for s in case_of(name).samples if all(x is None or x.dtype.kind != "c" for x in s.draw().values())]
    for sample in samples:
        arrays = {key: on_device(x) for key, x in sample.draw("random", "float32").items()}
        answers = xpconv.explain(getattr(ops, name), **arrays, **sample.options)
        assert "has no" not in answers["cupy"], f"{sample.name}: {answers['cupy']}"
        served += answers["portable"].startswith("comes after")
    assert served >= len(samples) / 2, f"{served} of {len(samples)} samples"


def test_every_primitive_is_reached():
    reached = set()
    for case in CASES:
        for sample in case.samples:
            arrays = {name: on_device(x) for name, x in sample.draw("random", "float32").items()}
            for name, parts, options in registered(case.op).bind(**arrays, **sample.options).parts():
                primitive = engine.PRIMITIVES.get(name)
                if primitive and not (primitive.declines and primitive.declines(*parts, **options)):
                    reached.add(name)
    assert reached == set(engine.PRIMITIVES) & set(portable.PRIMITIVES)  # others are not those of ops


def test_a_constant_of_a_graph_is_made_once_for_a_device():
    constant = pytest.importorskip("xpconv.exchange.onnx.values", exc_type=ImportError).Constant(np.ones(3))
    for i in range(cupy.cuda.runtime.getDeviceCount()):
        place = xpconv.backend.Backend("cupy", cupy, cupy.cuda.Device(i))
        assert constant.on(place) is constant.on(place)
        assert constant.on(place).value.device == place.device


def test_whoever_shows_something_hears_of_kernels_that_are_waited_for():
    waited = []
    compiled._kernel.cache_clear()
    with notices.told_to(waited.append, waited.append):
        for _ in range(2):
            ops.relu(cupy.ones(3))
    assert [text.rstrip("0123456789 ready") for text in waited] == ["getting CUDA kernel"]


def test_info_names_the_device_once(capsys):
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    assert told.count(f"cupy:0: {name}, compute capability") == 1
    assert told.count("CUDA: driver") == 1
    assert told.count(name) == cupy.cuda.runtime.getDeviceCount()
