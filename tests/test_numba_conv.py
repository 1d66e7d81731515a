"""What the laws do not see of compiled convolution: accuracy and edges of each algorithm, scratch, threads, packing."""

from __future__ import annotations

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import nn, ops, train
from xpconv.parity.bounds import NAMED, error_in_bounds

pytestmark = pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here")

FAST = 12.0  # the bound's constant for F(4×4)
WIDE = [  # x, w, padding: large enough for Winograd in all directions
    ((2, 10, 12, 32), (3, 3, 32, 32), 1),
    ((1, 12, 13, 64), (3, 3, 64, 48), 0),
    ((3, 11, 9, 48), (3, 3, 48, 64), ((3, 4), (2, 0))),
]
NAMES = ("conv_fprop", "conv_dgrad", "conv_wgrad")


@pytest.fixture(autouse=True)
def compiled():
    with xpconv.use_engine("numba"):
        yield


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def on(engine, x, w, dy=None, **options):
    """y, dx and dw."""
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(ops.conv, x, w, **options)
        return y, *pullback(draw(*y.shape, dtype=y.dtype, seed=9) if dy is None else dy)


def exact(x, w, **options):
    """y, dx and dw in float64, for the same dy."""
    y = ops.conv(x, w, **options)
    return on("portable", x.astype("float64"), w.astype("float64"), draw(*y.shape, seed=9).astype("float64"), **options)


def algorithms(x, w, **options):
    """What `explain` says of each direction."""
    text = xpconv.explain(ops.conv, x, w, **options)["numba"]
    starts = [text.index(name) for name in NAMES]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def direct_only(monkeypatch):
    """Let nothing be done by Winograd's algorithm."""
    from xpconv.engines.numba import choice

    monkeypatch.setattr(choice.winograd, "form_of", lambda work, large=False: None)
    forget()


def forget():
    from xpconv.engines.numba import choice

    for cached in (choice.output_step, choice.input_steps, choice.weight_step, choice.of_pass, choice.of_sum):
        cached.cache_clear()


@pytest.fixture
def forgetful():
    """Choices made under a patch are not remembered beyond it."""
    yield
    forget()


@pytest.mark.parametrize(("x", "w", "padding"), WIDE, ids=str)
def test_winograd_is_nearly_as_accurate_as_sums_in_blocks(monkeypatch, forgetful, x, w, padding):
    x, w = draw(*x), draw(*w)
    assert all("Winograd F(2×2, 3×3)" in text for text in algorithms(x, w, padding=padding))
    true, tiled = exact(x, w, padding=padding), on("numba", x, w, padding=padding)
    direct_only(monkeypatch)
    assert not any("Winograd" in text for text in algorithms(x, w, padding=padding))
    for right, mine, other in zip(true, tiled, on("numba", x, w, padding=padding), strict=True):
        errors, others = np.abs(mine - right), np.abs(other - right)
        assert 0 < np.sqrt((errors**2).mean()) < 2 * np.sqrt((others**2).mean())
        assert errors.max() < 3 * others.max()


@pytest.mark.parametrize("channels", [32, 64, 128])
def test_winograd_is_more_accurate_than_one_running_sum(channels):
    """Which is what a direct sum without blocks is."""
    x, w = draw(1, 24, 24, channels), draw(3, 3, channels, 64)
    assert "Winograd F(2×2, 3×3)" in algorithms(x, w)[0]
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(0, 1))
    terms = np.moveaxis(windows, 2, -1).reshape(22, 22, -1)
    running = np.zeros((22, 22, 64), "float32")
    for k, row in enumerate(w.reshape(-1, 64)):
        running += terms[..., k, None] * row
    true = exact(x, w)[0][0]
    errors, others = np.abs(ops.conv(x, w)[0] - true), np.abs(running - true)
    assert np.sqrt((errors**2).mean()) < np.sqrt((others**2).mean())
    assert errors.max() < others.max()


def bound(terms, x, w, **options):
    """The scale that errors of y are measured on."""
    size = ops.conv(np.abs(x).astype("float64"), np.abs(w).astype("float64"), **options)
    return np.sqrt(terms) * size.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("fill", [0.7, 0.1, None], ids=["0.7", "0.1", "random"])
@pytest.mark.parametrize(("x", "w", "padding"), WIDE, ids=str)
def test_large_tiles_are_for_fast_alone_and_within_its_bound(x, w, padding, fill):
    x, w = (draw(*shape) if fill is None else np.full(shape, fill, "float32") for shape in (x, w))
    true, scale = exact(x, w, padding=padding)[0], bound(9 * x.shape[-1], x, w, padding=padding)
    assert error_in_bounds(ops.conv(x, w, padding=padding), true, scale, "float32", NAMED) <= 1
    assert not any("F(4×4" in text for text in algorithms(x, w, padding=padding))
    with xpconv.precision("fast"):
        assert error_in_bounds(ops.conv(x, w, padding=padding), true, scale, "float32", FAST) <= 1


def test_fast_takes_large_tiles():
    x, w = draw(2, 16, 16, 64), draw(3, 3, 64, 64)
    with xpconv.precision("fast"):
        fprop, dgrad, wgrad = algorithms(x, w, padding=1)
        y = ops.conv(x, w, padding=1)
    assert "F(4×4" in fprop
    assert "F(4×4" in dgrad
    assert "F(2×2" in wgrad
    assert error_in_bounds(y, exact(x, w, padding=1)[0], bound(576, x, w, padding=1), "float32", FAST) <= 1
    assert not np.array_equal(y, ops.conv(x, w, padding=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_winograd_finishes_as_the_direct_sum_does(dtype, activation):
    x, w = draw(2, 10, 12, 32, dtype=dtype), draw(3, 3, 32, 32, dtype=dtype)
    more = {"b": draw(32, dtype=dtype), "residual": draw(2, 10, 12, 32, dtype=dtype, seed=1)}
    y = ops.conv(x, w, padding=1, activation=activation, **more)
    with xpconv.use_engine("portable"):
        np.testing.assert_allclose(y, ops.conv(x, w, padding=1, activation=activation, **more), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [0, 1, 40])
@pytest.mark.parametrize(
    ("size", "padding"), [((1, 1), 1), ((1, 1), 3), ((3, 3), 0), ((2, 5), ((4, 2), (1, 3)))], ids=str
)
def test_small_images(size, padding, images):
    x, w = draw(images, *size, 32), draw(3, 3, 32, 32)
    for mine, right in zip(on("numba", x, w, padding=padding), exact(x, w, padding=padding), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-4, atol=2e-4)


CALLS = {
    "Winograd": ((2, 20, 22, 32), (3, 3, 32, 32), {"padding": 1}),
    "direct": ((2, 21, 22, 24), (3, 3, 24, 40), {"padding": 1, "stride": 2}),
    "groups": ((2, 15, 16, 24), (3, 3, 12, 48), {"groups": 2}),
    "depthwise": ((3, 31, 32, 40), (3, 3, 1, 40), {"padding": 1, "groups": 40}),
    "few channels": ((3, 33, 34, 3), (5, 5, 3, 16), {"padding": 2, "stride": 2}),
}


@pytest.mark.parametrize("call", CALLS)
def test_any_number_of_threads_gives_the_same_bits(call):
    x, w, options = CALLS[call]
    x, w, answers = draw(*x), draw(*w), []
    for threads in (1, 2, 5):
        with xpconv.set_num_threads(threads):
            assert all(f"{threads} thread" in text for text in algorithms(x, w, **options))
            answers.append(on("numba", x, w, **options))
    for other in answers[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(answers[0], other, strict=True))


@pytest.mark.parametrize("limit", ["256K", "40K", "1K"])
@pytest.mark.parametrize("call", CALLS)
def test_little_scratch_gives_the_right_answer(call, limit):
    x, w, options = CALLS[call]
    x, w = draw(*x), draw(*w)
    wide = on("numba", x, w, **options)
    with xpconv.workspace_limit(limit), xpconv.use_engine("numba", "portable"):
        y, pullback = xpconv.vjp(ops.conv, x, w, **options)
        for mine, right in zip((y, *pullback(draw(*y.shape, seed=9))), wide, strict=True):
            np.testing.assert_allclose(mine, right, rtol=2e-4, atol=2e-4 * np.abs(right).max())


def test_scratch_and_packed_weights_stay_within_the_limit(monkeypatch):
    from xpconv.engines.numba import scratch

    taken = []
    take = scratch._take
    monkeypatch.setattr(scratch, "_take", lambda nbytes: taken.append(nbytes) or take(nbytes))
    x, w = draw(2, 24, 24, 64), draw(3, 3, 64, 64)
    packed = {"Winograd": w.nbytes * 16 // 9, "direct s": 0}
    on("numba", x, w, padding=1)
    assert max(taken) > 2**20
    algorithm = []
    for limit in (2**21, 2**19, 2**18):
        with xpconv.workspace_limit(limit):
            algorithm.append(algorithms(x, w, padding=1)[0].partition("(")[2][:8])
            taken.clear()
            y, pullback = xpconv.vjp(ops.conv, x, w, padding=1)
            assert max(taken) + packed[algorithm[-1]] <= limit
            taken.clear()
            pullback(y)
            assert max(taken) <= limit
    assert algorithm == ["Winograd", "Winograd", "direct s"]


def test_weights_too_large_to_pack_are_turned_in_tasks_or_declined():
    x, w = draw(2, 24, 24, 64), draw(3, 3, 64, 64)
    assert "Winograd" in algorithms(x, w, padding=1)[1]
    with xpconv.workspace_limit(w.nbytes // 2):
        assert "direct sum" in algorithms(x, w, padding=1)[1]
    depthwise = draw(3, 3, 1, 64)
    with xpconv.workspace_limit(depthwise.nbytes - 1):
        text = xpconv.explain(ops.conv, x, depthwise, groups=64)["numba"]
    assert "would pack 2304 bytes of depthwise weights, more than workspace_limit allows" in text


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_turned_in_tasks_leave_bias_and_residual_right(stride):
    x, w, b = draw(2, 12, 12, 64), draw(3, 3, 64, 64), draw(64, seed=1)
    options = {"stride": stride, "padding": "same"}
    side = draw(2, 12 * stride, 12 * stride, 64, seed=2)
    with xpconv.workspace_limit(w.nbytes // 2):
        y = ops.conv_transpose(x, w, b, residual=side, **options)
    right = ops.conv_transpose(*(a.astype("float64") for a in (x, w, b)), **options) + side
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [64, 24])
def test_a_large_input_gradient_is_zero_where_no_window_reaches(channels):
    x, w = draw(1, 260, 180, channels), draw(1, 1, channels, 20)  # more than 4 MiB
    y, dx, _ = on("numba", x, w, stride=2)
    np.testing.assert_allclose(dx[:, ::2, ::2], draw(*y.shape, seed=9) @ w[0, 0].T, rtol=1e-4, atol=1e-4)
    assert not dx[:, 1::2].any()
    assert not dx[:, :, 1::2].any()


@pytest.mark.parametrize("shapes", [((2, 9, 9, 200), (3, 3, 200, 140)), ((3, 12, 11, 40), (5, 3, 40, 6))])
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_turned_in_parts_and_at_once_give_the_same(shapes, stride, monkeypatch):
    direct_only(monkeypatch)
    x, w = draw(*shapes[0]), draw(*shapes[1])
    answers = []
    for threads, limit in ((1, "256M"), (3, "256M"), (2, "1K")):
        with xpconv.set_num_threads(threads), xpconv.workspace_limit(limit):
            answers.append(on("numba", x, w, padding=1, stride=stride)[1])
    np.testing.assert_allclose(answers[0], exact(x, w, padding=1, stride=stride)[1], rtol=1e-4, atol=1e-3)
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_a_linear_layer_gives_the_same_in_little_scratch():
    x, w = draw(3, 70), draw(70, 40)
    y, pullback = xpconv.vjp(ops.linear, x, w)
    dx, dw = pullback(y)
    with xpconv.workspace_limit(4000):
        part_dx, part_dw = xpconv.vjp(ops.linear, x, w)[1](y)
    assert np.array_equal(dx, part_dx)
    assert np.array_equal(dw, part_dw)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_cell_spoils_its_own_windows_alone(bad):
    x, w = draw(1, 12, 12, 32), draw(3, 3, 32, 32)
    assert "Winograd" in algorithms(x, w)[0]
    clean = ops.conv(x, w)
    x[0, 5, 6, 7] = bad
    y = ops.conv(x, w)
    seen = np.zeros((10, 10), bool)
    seen[3:6, 4:7] = True
    assert not np.isfinite(y[0][seen]).any()
    spoilt = ~np.isfinite(y[0]).all(axis=-1)
    assert np.array_equal(y[0][~spoilt], clean[0][~spoilt])
    assert np.array_equal(spoilt, seen)


def test_weights_are_transformed_once_for_each_version(monkeypatch):
    from xpconv.engines.numba import winograd

    made = []
    weigh = winograd.weigh
    monkeypatch.setattr(winograd, "weigh", lambda *args: made.append(args) or weigh(*args))
    layer = nn.Conv2d(32, 32, 3, padding=1).initialize()
    x = draw(2, 12, 12, 32)
    before = layer(x)
    assert np.array_equal(layer(x), before)
    assert len(made) == 1
    y, pullback = layer.vjp(x)
    pullback(y)
    pullback(y)
    assert len(made) == 2  # one for the input gradient
    train.SGD(0.1).step(layer.parameters())
    after = layer(x)
    assert len(made) == 3
    w, b = (np.array(parameter.value) for parameter in (layer.weight, layer.bias))
    np.testing.assert_allclose(after, ops.conv(x, w, b, padding=1), rtol=1e-5, atol=1e-5)
    assert not np.allclose(before, after)
    assert len(made) == 4  # an array that is nobody's parameter


@pytest.mark.parametrize("call", ["Winograd", "depthwise", "few channels"])
def test_any_layout_of_memory_gives_the_same(call):
    x, w, options = CALLS[call]
    x, w = draw(*x), draw(*w)
    plain = on("numba", x, w, **options)
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), "float32")
    wide[..., 1:-2] = x
    for view in (
        wide[..., 1:-2],  # gaps between cells
        x[:, ::-1].copy()[:, ::-1],
        np.repeat(x, 2, axis=2)[:, :, ::2],
        np.moveaxis(np.moveaxis(x, -1, 1).copy(), 1, -1),  # channels far apart
    ):
        view.flags.writeable = False
        for a, b in zip(on("numba", view, w, **options), plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [*range(1, 18), 33])
def test_depthwise_of_any_width_agrees_with_portable(channels):
    for stride, size in ((1, 3), (2, 3), (3, 2)):
        x, w = draw(2, 11, 13, channels), draw(size, size, 1, channels)
        options = {"stride": stride, "padding": 1, "groups": channels}
        for mine, right in zip(on("numba", x, w, **options), exact(x, w, **options), strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-4)


BLOCKS = {  # size, kernel, options: how taps lie together, and how pixels come out in lines
    "5 × 5": ((12, 15), (5, 5), {"padding": 2}),
    "7 × 7": ((9, 17), (7, 7), {"padding": 3}),
    "a kernel wider than the image": ((3, 2), (7, 7), {"padding": 3}),
    "uneven": ((16, 9), (3, 2), {"padding": ((0, 3), (2, 0)), "stride": (3, 1)}),
    "dilated": ((13, 12), (3, 3), {"padding": 2, "dilation": 2}),
    "dilated lines": ((13, 12), (3, 3), {"padding": (2, 1), "dilation": (2, 1)}),
    "one line": ((1, 200), (3, 3), {"padding": 1}),
    "1-D": ((150,), (5,), {"padding": 2, "stride": 2}),
    "3-D": ((5, 6, 9), (3, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
    "odd strides": ((11, 14), (5, 3), {"padding": ((2, 0), (1, 3)), "stride": (2, 3)}),
    "strides past the kernel": ((9, 13), (1, 2), {"padding": (0, 1), "stride": (2, 4)}),
}


@pytest.mark.parametrize("call", BLOCKS)
@pytest.mark.parametrize("activation", [None, "relu6", "silu"])
def test_depthwise_of_any_window_agrees_with_portable(call, activation):
    size, kernel, options = BLOCKS[call]
    x, w = draw(2, *size, 18), draw(*kernel, 1, 18)
    options = {**options, "groups": 18, "activation": activation}
    y = ops.conv(x, w, **options)
    more = {"b": draw(18), "residual": draw(*y.shape, seed=3)}
    wide = {name: value.astype("float64") for name, value in more.items()}
    dy = draw(*y.shape, seed=9)
    mine = on("numba", x, w, dy, **options, **more)
    right = on("portable", *(a.astype("float64") for a in (x, w, dy)), **options, **wide)
    for a, b in zip(mine, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_goes_past_the_caches_is_the_same(monkeypatch, stride):
    from xpconv.engines.numba import arrays
    from xpconv.engines.numba.machine import machine

    x, w, b = draw(2, 19, 22, 32), draw(3, 3, 1, 32), draw(32)
    options = {"stride": stride, "padding": 1, "groups": 32}
    near = on("numba", x, w, b=b, activation="relu", **options)
    monkeypatch.setattr(arrays, "_CACHED", 0)
    if machine().lanes("float32") == 16:  # narrower vectors are no whole lines
        assert arrays.streams(x, near[0], 16)
    for mine, other in zip(on("numba", x, w, b=b, activation="relu", **options), near, strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_bad_cell_spoils_its_own_taps_alone(bad, stride):
    """Depthwise, all three directions: tiles overlap, and lines that are not kept are computed too."""
    x, w = draw(1, 13, 15, 16), draw(3, 3, 1, 16)
    options = {"stride": stride, "padding": 1, "groups": 16}
    x[0, 6, 14, 3] = x[0, 12, 7, 5] = bad
    for mine, right in zip(on("numba", x, w, **options), exact(x, w, **options), strict=True):
        assert np.array_equal(np.isfinite(mine), np.isfinite(right))


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 0, 3), (2, ((0, 3), (4, 1)), 5), (3, 1, 2)], ids=str)
def test_columns_agree_with_portable(channels, stride, padding, size):
    x, w = draw(2, 13, 14, channels, dtype="float64"), draw(size, size, channels, 5, dtype="float64")
    options = {"stride": stride, "padding": padding}
    assert ("columns" in algorithms(x, w, **options)[1]) == (2 * channels <= 8)
    for mine, right in zip(on("numba", x, w, **options), on("portable", x, w, **options), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-11, atol=1e-11)


def test_explain_tells_algorithm_tile_threads_cost_and_scratch():
    with xpconv.set_num_threads(2):
        text = algorithms(draw(4, 28, 28, 64), draw(3, 3, 64, 64), padding=1)[0]
    assert "conv_fprop (Winograd F(2×2, 3×3), tiles of " in text
    assert "2 threads, 116 M multiply-adds at the cost of 62.5 M, " in text
    assert "iB scratch)" in text
    linear = xpconv.explain(ops.linear, draw(2, 8), draw(8, 5))["numba"]
    assert all(part in linear for part in ("y: direct sum", "dx: direct sum", "dw: sum of outer products", "1 thread,"))


def test_few_channels_are_not_worth_the_transforms():
    for channels in (8, 16, 64):
        x, w = draw(2, 28, 28, channels), draw(3, 3, channels, channels)
        for text in algorithms(x, w, padding=1)[:2]:
            assert ("Winograd" in text) == (channels > 8), text


@pytest.mark.parametrize("out_channels", [6, 24, 40])
def test_channels_that_end_within_a_vector(out_channels):
    x, w = draw(2, 9, 8, 5), draw(3, 3, 5, out_channels)
    for ours, theirs in zip(on("numba", x, w, padding=1), on("portable", x, w, padding=1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [2**18, 2**20, 3 * 2**20, 2**28])
def test_the_algorithm_does_not_depend_on_the_threads(limit):
    from xpconv.engines.numba import choice
    from xpconv.engines.numba.tiling import Room
    from xpconv.window import conv_window

    for size, kernel, stride, padding in (
        ((112, 5), (3, 1), 2, (1, 0)),
        ((56, 56), (3, 3), 1, 1),
        ((14, 14), (5, 5), 2, 2),
    ):
        window = conv_window("conv", size, kernel, stride, padding, 1)
        for channels, dtype in ((32, "float32"), (64, "float64"), (128, "float32")):
            problem = choice.Problem(dtype, 2, channels, channels, 1, window, False)
            ways = {
                tuple(
                    (step.choice.name, step.choice.cost)
                    for steps in (
                        (choice.output_step(problem, room, False),),
                        choice.input_steps(problem, room, False, True),
                        (choice.weight_step(problem, room),),
                    )
                    for step in steps
                )
                for room in (Room(threads, limit, False) for threads in (1, 2, 8, 64))
            }
            assert len(ways) == 1
