"""The way of a benchmark on a GPU, gone on the emulated CuPy: what it times there is no measurement, and says so."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from benches import ROOT, emulated

from xpconv import settings
from xpconv.bench import sets, sides, truth
from xpconv.bench.candidate import Candidate
from xpconv.bench.case import Case, rounded
from xpconv.bench.devices.cuda import Cuda
from xpconv.bench.layer import Layer
from xpconv.errors import EngineError

CONV = Layer("tiny", "conv", "conv", (5, 5, 3), {"w": (3, 3, 3, 4)}, {"padding": 1}, batch=2)


def bench(path, *options):
    done = emulated("-m", "xpconv", "bench", "--backend", "cupy", "--rounds", 1, "--tries", 1, "--json", path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


def test_rows_go_all_the_way_and_are_marked(tmp_path):
    peers = ("--against", "launch,engine:portable")
    chosen = ("--set", "overhead", "--only", "ReLU", "--emulated")
    found, shown = bench(tmp_path / "b.json", *peers, *chosen)
    assert found["emulated"] is True
    assert found["gpu"] == "emulated on the CPU"
    assert "events" in found["how"]["time"]
    forward, backward = found["rows"]
    assert (forward["direction"], backward["direction"]) == ("forward", "backward")
    assert all(side["host_us"] > 0 and side["error"] <= 1 for side in forward["sides"].values())
    assert backward["sides"]["launch"] == {"not_offered": "ReLU forward in float32 only"}
    assert forward["sides"]["xpconv"]["engine"] != forward["sides"]["engine:portable"]["engine"] == "portable"
    assert shown.count("host µs") == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_and_fused_layers_are_judged(dtype, tmp_path):
    options = ("--set", "overhead", "--only", "8→8 3×3", "--dtype", dtype, "--against", "none", "--emulated")
    found, _ = bench(tmp_path / "b.json", *options)
    assert [row["direction"] for row in found["rows"]] == ["forward", "fused", "backward"]
    assert found["dtype"] == dtype
    assert all(0 < row["sides"]["xpconv"]["error"] <= 1 for row in found["rows"])
    assert found["rows"][0]["bytes"] == 2 * (2 * 4 * 4 * 8 + 3 * 3 * 8 * 8)


def test_a_recorded_step_is_timed_beside_the_usual_one(tmp_path):
    options = ("--set", "steps", "--only", "lenet 28", "--batch", 2, "--against", "none", "--emulated", "--memory")
    found, _ = bench(tmp_path / "b.json", *options)
    ours = found["rows"][0]["sides"]["xpconv"]
    assert list(ours["times_ms"]) == ["cupy", "cupy, CUDA graph"]
    assert all(error <= 1 for error in ours["errors"].values())
    assert ours["engine"].startswith("CUDA graph: a step of 2 images is recorded")
    assert "memory_bytes" in ours


def test_recorded_inference_is_timed_beside_the_usual_one(tmp_path):
    options = ("--set", "inference", "--only", "lenet 28", "--batch", 2, "--against", "none", "--emulated")
    ours = bench(tmp_path / "b.json", *options)[0]["rows"][0]["sides"]["xpconv"]
    assert list(ours["times_ms"]) == ["cupy", "cupy, CUDA graph"]
    assert ours["engine"] == "CUDA graph: inference of 2 images is recorded and replayed"


def test_a_step_that_is_no_function_is_timed_by_cupys_profiler():
    told = "import sys; sys.path.insert(0, sys.argv[1]); import functools, gpu_profile as g; g.by_cupyx({})"
    done = emulated("-c", told.format("functools.partial(int)"), ROOT / "bench")
    assert done.returncode == 0, done.stderr


def test_an_emulated_gpu_is_refused_unless_it_is_asked_for(tmp_path):
    done = emulated("-m", "xpconv", "bench", "--backend", "cupy", "--against", "none", "--json", tmp_path / "b.json")
    assert done.returncode == 2
    assert "its times mean nothing" in done.stderr
    assert not (tmp_path / "b.json").exists()


class Counting(Cuda):
    """A device whose calls take 1 ms, and the handing of them 0.1 ms."""

    now = 0.0

    def record(self):
        return self.now

    def elapsed(self, first, last):
        return last - first

    def synchronize(self):
        pass


def test_calls_are_timed_in_batches_between_events(monkeypatch):
    device, calls = Counting(), []

    def call():
        calls.append(device.now)
        device.now += 1e-3

    monkeypatch.setattr(time, "perf_counter", lambda: device.now / 10)
    found = device.timed(Candidate("a", call, dict), 0.02)
    assert found.times == pytest.approx([1e-3] * 5)
    assert found.host == pytest.approx([1e-4] * 5)
    assert len(calls) == 1 + 3 + 5 * 4  # one to wake the device, three for an estimate, then 4 ms a batch


def test_an_engine_is_a_peer():
    module, applied = sides.of("engine:portable+reference", settings.current())
    assert module == sides.SIDES["xpconv"].module
    assert applied.engine == ("portable", "reference")
    sides.check(["engine:portable"])
    with pytest.raises((ValueError, EngineError), match="no engine is called 'abacus'"):
        sides.check(["engine:abacus"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_arrays_hold_what_the_dtype_has(dtype):
    arrays = Case(CONV, 2, "fused", dtype).arrays()
    assert list(arrays) == ["x", "w", "b", "dy"]
    bits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 24}[dtype]
    for x in arrays.values():
        mantissa, _ = np.frexp(x.astype("float64"))
        assert np.array_equal(mantissa * 2**bits, np.round(mantissa * 2**bits))
        assert x.dtype == ("float64" if dtype == "float64" else "float32")


def test_bfloat16_is_rounded_to_even():
    ties = np.float32([1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8])
    assert np.array_equal(rounded(ties, "bfloat16"), np.float32([1, 1, 1 + 2**-6]))


def test_large_arrays_repeat_without_two_equal_rows():
    x = Case(Layer("tiny", "big", "relu", (300, 300, 60)), 1, "forward").arrays()["x"]
    flat = x.reshape(-1, 60)
    assert len(np.unique(flat[:, :2], axis=0)) == len(flat)


def test_fused_layers_are_wanted_where_they_are_asked_for():
    assert {case.direction for case in sets.chosen(["lenet"])} == {"forward", "backward"}
    fused = sets.chosen(["lenet", "pools"], directions=["fused"], dtype="bfloat16")
    assert len(fused) == 3
    assert all(case.options["activation"] == "relu" and case.dtype == "bfloat16" for case in fused)
    with pytest.raises(ValueError, match="no dtype is called 'int8'"):
        sets.chosen(["lenet"], dtype="int8")


def test_losses_that_were_found_beforehand_are_those_of_the_steps():
    """Where images or weights are drawn otherwise than then, they are not found, and bench/losses.py must be run."""
    known = truth._known_losses()
    dtypes = ("bfloat16", "float32", "float16")
    for set_name, only, dtype in (("steps", "", "float32"), *(("large_steps", "ResNet-50", name) for name in dtypes)):
        for case in sets.chosen([set_name], only=only, dtype=dtype):
            arrays = case.arrays()
            found = known[truth.digest(case, arrays)]
            assert (found["case"], found["dtype"]) == (case.name, dtype)
            if "LeNet" in case.name:
                with settings.use_engine("portable"):
                    np.testing.assert_allclose(truth.losses(case, arrays), found["losses"], rtol=1e-9)
                assert truth.digest(case, {**arrays, "x": arrays["x"] + 1}) not in known


def test_the_networks_that_are_timed_have_one_set_of_names():
    """PyTorch's modules take xpconv's values by name; every one is taken."""
    pytest.importorskip("torch")
    from xpconv.bench.networks import CLASSES, network
    from xpconv.bench.sides.torch_networks import network as torch_network

    for model in CLASSES:
        x = np.zeros((1, 32, 32, 3), "float32")
        theirs = {n for n in torch_network(model, x).state_dict() if not n.endswith("num_batches_tracked")}
        assert theirs == set(network(model, x).state_dict())


def test_pytorchs_graph_begins_at_the_first_weights(monkeypatch):
    """The capture's own steps leave no trace; PyTorch's CUDA names are replaced by what runs on the host."""
    torch = pytest.importorskip("torch")
    from contextlib import nullcontext

    from xpconv.bench.sides import torch_graph, torch_step

    class Stream:
        def wait_stream(self, other):
            pass

    replaced = {"Stream": Stream, "current_stream": Stream, "CUDAGraph": object}
    for name, value in {**replaced, "stream": nullcontext, "graph": nullcontext}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    case = Case(Layer("tiny", "ResNet", "step", (8, 8, 3), options={"model": "resnet20"}), 4, "step")
    arrays = case.arrays()
    step, fresh = (torch_step.step_of(case, arrays, 4, torch.contiguous_format) for _ in range(2))
    torch_graph._captured(step)
    for name, tensor in fresh.net.state_dict().items():
        assert torch.equal(step.net.state_dict()[name], tensor), name
    assert [float(step()) for _ in range(2)] == [float(fresh()) for _ in range(2)]
