"""The cuDNN engine from dispatch to the pointers that a plan gets, on the emulated CuPy, its graphs interpreted.

The laws run beside this on the row `cupy/cudnn`.
"""

from __future__ import annotations

import gc
import weakref

import cudnn_interpreter
import numpy as np
import pytest
from cudnn_calls import (
    close,
    conv,
    cupy,
    fprop_options,
    layouts,
    made,
    own_choices,  # noqa: F401 - a fixture
    plans,
    strict_chain,  # noqa: F401 - for every test
)

import xpconv
from xpconv import nn, ops
from xpconv.parity import Target, joined


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    """The other dtypes are held to this by the laws."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for c, o, groups, options in (
        (8, 16, 1, {"padding": 1, "activation": "silu"}),
        (3, 5, 1, {"stride": 2, "padding": ((2, 0), (0, 1)), "activation": "relu"}),
        (6, 9, 3, {"dilation": 2, "padding": "same"}),
        (4, 4, 4, {"padding": 1, "activation": "tanh"}),
    ):
        x, w, b = (made(*shape, dtype=bfloat16) for shape in ((2, 7, 6, c), (3, 3, c // groups, o), (o,)))
        y, pullback = xpconv.vjp(ops.conv, x, w, b, groups=groups, **options)
        dy = made(*y.shape, dtype=bfloat16)
        host = [a.get().astype("float64") for a in (x, w, b)]
        with xpconv.use_engine("portable"):
            expected, host_pullback = xpconv.vjp(ops.conv, *host, groups=groups, **options)
            grads = host_pullback(dy.get().astype("float64"))
        for got, wanted in zip((y, *pullback(dy)), (expected, *grads), strict=True):
            assert got.dtype == bfloat16
            error = np.abs(got.get().astype("float64") - wanted)
            assert (error <= 2.0**-8 * np.abs(wanted) + 1e-5 * np.abs(wanted).max()).all()


@pytest.mark.parametrize("activation", [None, *ops.activation.ACTIVATIONS])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_fused_is_done_after(dtype, residual, activation):
    x, w, b = made(2, 6, 5, 8, dtype=dtype), made(3, 3, 8, 8, dtype=dtype), made(8, dtype=dtype)
    options = {"padding": 1, "activation": activation}
    for bias in (None, b):
        side = x if residual else None
        y, pullback = xpconv.vjp(ops.conv, x, w, bias, residual=side, **options)
        dy = made(*y.shape, dtype=dtype)
        close(y, x, w, bias, side, dy=dy, grads=pullback(dy), **options)


def test_a_fused_call_is_one_launch_of_one_graph():
    x, w, b = made(2, 8, 8, 16), made(3, 3, 16, 16), made(16)
    ops.conv(x, w, b, padding=1, residual=x, activation="relu")
    assert cudnn_interpreter.launches == ["CONV_FPROP ADD ADD RELU_FWD"]


def test_a_norm_in_half_precision_is_part_of_the_launch_if_plans_may_take_their_time(own_choices):  # noqa: F811 - the fixture
    """Multiplied and shifted in float32, with the weights that the convolution has anyway."""
    row = joined.check(Target("cupy", "cudnn"))
    assert row.ok, row.misses()
    assert (row.calls, row.declined) == (4 * len(joined.SAMPLES), 0)
    with xpconv.use_backend("cupy"):
        net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm(8)).initialize().to(dtype="float16")
    block, x = nn.Residual(net, activation="relu"), made(2, 6, 6, 8, dtype="float16")
    for tuned, launched in ((True, "CONV_FPROP MUL ADD ADD RELU_FWD"), (False, "CONV_FPROP ADD")):
        with xpconv.autotune(tuned):
            block(x)
            cudnn_interpreter.launches.clear()
            block(x)
        assert cudnn_interpreter.launches == [launched]


def test_a_scaled_launch_is_told_of():
    x, w = made(2, 6, 6, 8, dtype="float16"), made(3, 3, 8, 8, dtype="float16")
    options, ones = fprop_options(x, w), cupy.ones(8, dtype="float32")
    options["epilogue"] = options["epilogue"]._replace(scale=ones, bias=ones, activation="relu")
    assert "NHWC in one launch with scale, bias, relu" in conv.PRIMITIVES["conv_fprop"].describe(x, w, **options)


@pytest.mark.parametrize(("dtype", "launched"), [("float32", "CONV_DGRAD ADD ADD"), ("float64", "CONV_DGRAD")])
def test_an_input_gradient_adds_its_residual_in_the_launch_or_after_it(dtype, launched):
    """In float64 the library adds neither that nor a bias to it."""
    x, w, b, side = (made(*shape, dtype=dtype) for shape in ((2, 6, 6, 16), (3, 3, 8, 16), (8,), (2, 12, 12, 8)))
    y = ops.conv_transpose(x, w, b, stride=2, padding="same", residual=side)
    assert cudnn_interpreter.launches == [launched]
    close(y, x, w, b, side, op=ops.conv_transpose, stride=2, padding="same")


def test_nothing_is_planned_twice_and_a_second_call_looks_up(monkeypatch):
    x, w = made(2, 7, 8, 8), made(3, 3, 8, 8)
    ops.conv(x, w)
    monkeypatch.setattr(plans, "planned", lambda *a: pytest.fail("planned again"))
    close(ops.conv(x, w), x, w)
    close(ops.conv(x + 1, w), x + 1, w)


def test_a_call_looks_its_plan_up_once_and_keeps_none_of_its_arrays():
    x, w = made(2, 7, 9, 8), made(3, 3, 8, 8)

    def lookups(work):
        before = plans.find.cache_info()
        work()
        after = plans.find.cache_info()
        return after.hits + after.misses - before.hits - before.misses

    ops.conv(x, w)
    assert lookups(lambda: ops.conv(x, w)) == 1
    _, pullback = xpconv.vjp(ops.conv, x, w)
    assert lookups(lambda: pullback(ops.conv(x, w))) == 3
    xpconv.explain(ops.conv, x, w)
    gone = weakref.ref(x)
    x = pullback = None
    gc.collect()
    assert gone() is None


def test_settings_that_change_between_question_and_work_are_heeded():
    x, w = made(2, 7, 9, 16), made(3, 3, 16, 16)
    options = fprop_options(x, w)
    primitive, seen = conv.PRIMITIVES["conv_fprop"], []
    with xpconv.deterministic(True):
        assert primitive.declines(x, w, **options) is None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plans.Way, "run", lambda self, *operands: seen.append(self.problem.deterministic))
        primitive.run(x, w, **options)
    assert seen == [False]


def test_strided_and_misaligned_arrays_are_copied():
    wide = made(2, 8, 7, 24)
    x, w = wide[:, ::-1, :, ::3], made(3, 3, 16, 8)[:, :, ::2]
    close(ops.conv(x, w, padding=1), x, w, padding=1)
    x, w = made(3, 5, 5, 1)[1:], made(3, 3, 1, 2)
    assert x.data.ptr % 16
    close(ops.conv(x, w), x, w)


def test_work_is_done_on_the_arrays_own_device():
    with cupy.cuda.Device(1):
        x, w = made(2, 6, 6, 8), made(3, 3, 8, 8)
    y, pullback = xpconv.vjp(ops.conv, x, w)
    assert y.device == x.device
    assert all(g.device == x.device for g in pullback(y))
    assert cupy.cuda.device.get_device_id() == 0


def test_a_parameters_weights_are_turned_once_and_again_after_a_change(monkeypatch):
    turned, turn = [], layouts._turned
    monkeypatch.setattr(layouts, "_turned", lambda *w: turned.append(0) or turn(*w))
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 8, 3, padding=1).initialize()
    x = made(2, 6, 6, 8)
    y, pullback = net.vjp(x)
    pullback(y)
    net(x)
    assert len(turned) == 1  # also for the input gradient
    net.weight.assign(net.weight.value * 2)
    close(net(x), x, net.weight.value, net.bias.value, padding=1)
    assert len(turned) == 2
    ops.conv(x, net.weight.value), ops.conv(x, net.weight.value)
    assert len(turned) == 4


def test_each_stream_has_turned_weights_of_its_own(monkeypatch):
    """Another stream does not wait until they are made."""
    turned, real = [], layouts._turned
    monkeypatch.setattr(layouts, "_turned", lambda *w: turned.append(w) or real(*w))
    layer, other, x = nn.Conv2d(4, 8, 3), cupy.cuda.Stream(non_blocking=True), made(2, 6, 6, 4)
    for count in (1, 1):
        layer(x)
        assert len(turned) == count
    with other:
        layer(x), layer(x)
    layer(x)
    assert len(turned) == 2


def test_a_captured_graph_replays_with_new_input_new_weights_and_no_waiting():
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 8, 3, padding=1, activation="relu").initialize()
    x, stream = made(2, 6, 6, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        net(x)  # plans, handles
        stream.begin_capture()
        y = net(x)
        graph = stream.end_capture()
        for change in (x, net.weight.value):
            change[...] = change * -0.5
            before = cupy.emulation.counts["synchronisations"]
            graph.launch()
            assert cupy.emulation.counts["synchronisations"] == before
            close(y, x, net.weight.value, net.bias.value, padding=1, activation="relu")


def test_a_plan_that_a_graph_has_captured_outlives_its_place_among_the_kept():
    """The graph launches what belongs to the plan, long after other problems have taken its place."""
    x, w, stream = made(2, 6, 12, 8), made(3, 3, 8, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = ops.conv(x, w)
        plan = conv._found(conv.fprop_problem(x, w, **fprop_options(x, w)))
        assert plan.way not in plans._captured
        stream.begin_capture()
        y = ops.conv(x, w)
        graph = stream.end_capture()
        plans.find.cache_clear()
        assert plan.way in plans._captured
        graph.launch()
    close(y, x, w)


def test_planning_while_a_graph_is_captured_says_what_to_do():
    x, w, stream = made(2, 6, 11, 8), made(3, 3, 8, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with xpconv.use_engine("cudnn"), pytest.raises(xpconv.EngineError, match="run the same call once before the"):
            ops.conv(x, w)
        stream.end_capture()
        ops.conv(x, w)  # nothing of the refusal is remembered


def test_a_plan_gets_its_workspace(monkeypatch):
    taken, alloc = [], cupy.cuda.alloc
    monkeypatch.setattr(cupy.cuda, "alloc", lambda n: taken.append(n) or alloc(n))
    x, w, b = made(2, 8, 8, 64), made(3, 3, 64, 64), made(64)
    ops.conv(x, w, b, padding=1)
    assert len(taken) == 1
    assert taken[0] > 0
    with xpconv.workspace_limit(taken[0] - 1):
        close(ops.conv(x, w, b, padding=1), x, w, b, padding=1)
    assert taken[1:] in ([], [n for n in taken[1:] if n < taken[0]])
