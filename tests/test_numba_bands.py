"""Compiled convolution with few channels, from bands that are copied: edges, strides, threads, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import ops

pytestmark = pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here")

PIXELS, LINES = "pixels in the lanes", "along copied lines"
CALLS = {  # x, w, options: how lines come out in vectors, or in tiles
    "LeNet": ((3, 28, 28, 1), (5, 5, 1, 6), {"padding": 2}),
    "one output channel": ((2, 9, 21, 1), (3, 3, 1, 1), {}),
    "an odd number of them": ((2, 13, 18, 2), (3, 3, 2, 5), {"padding": 1}),
    "nine of them": ((1, 7, 35, 1), (3, 3, 1, 9), {"padding": 1}),
    "strides": ((2, 22, 67, 1), (3, 4, 1, 12), {"padding": ((2, 0), (0, 3)), "stride": 2}),
    "dilated lines": ((2, 12, 19, 2), (3, 3, 2, 6), {"padding": (2, 1), "dilation": (2, 1)}),
    "wider than the image": ((2, 4, 5, 1), (3, 7, 1, 3), {"padding": 4}),
    "1-D": ((3, 90, 3), (5, 3, 7), {"padding": 2}),
}
WHOLE = {  # for whole vectors of output channels
    "RGB": ((2, 21, 23, 3), (3, 3, 3, 32), {"padding": 1, "stride": 2}),
    "sums of several runs": ((2, 19, 20, 3), (7, 7, 3, 64), {"padding": 3, "stride": 2}),
    "three vectors": ((1, 12, 13, 2), (2, 5, 2, 48), {"stride": (1, 3)}),
    "five vectors": ((1, 9, 14, 1), (3, 3, 1, 80), {"padding": ((0, 2), (3, 1))}),
    "short lines": ((2, 8, 3, 1), (3, 3, 1, 16), {"padding": 1}),
    "signals": ((3, 200, 2), (9, 2, 16), {"padding": 4}),
}


@pytest.fixture(autouse=True)
def bands_wherever_they_can(monkeypatch):
    """Layers as small as these are a near thing for the cost model: let addresses be dear."""
    from xpconv.engines.numba import choice

    monkeypatch.setattr(choice, "_ADDRESS", 10**6)
    choice.output_step.cache_clear()
    with xpconv.use_engine("numba"):
        yield
    choice.output_step.cache_clear()


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def told(x, w, **options):
    """What `explain` says of the output."""
    return xpconv.explain(ops.conv, x, w, **options)["numba"].split("conv_dgrad")[0]


@pytest.mark.parametrize(
    ("call", "dtype", "activation"),
    [
        *((call, "float32", "relu6") for call in [*CALLS, *WHOLE]),
        *((call, "float64", None) for call in ("LeNet", "strides", "RGB", "sums of several runs")),
        *((call, "float32", "silu") for call in ("LeNet", "1-D", "RGB")),  # in a pass of its own
    ],
)
def test_any_window_agrees_with_portable(call, dtype, activation):
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    x, w, options = (CALLS | WHOLE)[call]
    x, w = draw(*x, dtype=dtype), draw(*w, dtype=dtype)
    assert (LINES if call in WHOLE else PIXELS) in told(x, w, **options)
    y = ops.conv(x, w, **options)
    more = {"b": draw(w.shape[-1], dtype=dtype), "residual": draw(*y.shape, dtype=dtype, seed=3)}
    more["activation"] = activation
    dy = draw(*y.shape, dtype=dtype, seed=9)
    answers = []
    for engine in ("numba", "portable"):
        with xpconv.use_engine(engine):
            z, pullback = xpconv.vjp(ops.conv, x, w, **options, **more)
            answers.append((ops.conv(x, w, **options, **more), z, *pullback(dy)))
    for mine, right in zip(*answers, strict=True):
        np.testing.assert_allclose(mine, right, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("call", ["LeNet", "strides", "RGB"])
def test_any_number_of_threads_gives_the_same(call):
    x, w, options = (CALLS | WHOLE)[call]
    x, w = draw(40, *x[1:]), draw(*w)
    answers = []
    for threads in (1, 2, 3):
        with xpconv.set_num_threads(threads):
            answers.append(ops.conv(x, w, activation="tanh", **options))
    for other in answers[1:]:
        assert np.array_equal(answers[0], other)


def test_an_image_is_the_same_alone_and_among_others():
    x, w, options = CALLS["LeNet"]
    x, w = draw(*x), draw(*w)
    together = ops.conv(x, w, **options)
    for n in range(len(x)):
        np.testing.assert_array_equal(ops.conv(x[n : n + 1], w, **options)[0], together[n])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("outputs", "stride", "name"), [(6, 1, PIXELS), (16, 2, LINES)])
def test_a_bad_cell_spoils_the_windows_that_hold_it(bad, outputs, stride, name):
    x, w = draw(1, 20, 21, 2), draw(3, 3, 2, outputs)
    assert name in told(x, w, padding=1, stride=stride)
    x[0, 6, 9, 1] = bad
    y = ops.conv(x, w, padding=1, stride=stride)
    spoilt = ~np.isfinite(y[0]).all(axis=-1)
    hold = [(i, j) for i, j in np.ndindex(*y.shape[1:3]) if abs(stride * i - 6) < 2 and abs(stride * j - 9) < 2]
    assert list(zip(*np.nonzero(spoilt), strict=True)) == hold


@pytest.mark.parametrize("stride", [1, 2])
def test_what_goes_past_the_caches_is_the_same(monkeypatch, stride):
    from xpconv.engines.numba import arrays
    from xpconv.engines.numba.machine import machine

    x, w, b = draw(2, 19, 22, 3), draw(3, 3, 3, 32), draw(32)
    assert LINES in told(x, w, padding=1, stride=stride)
    near = ops.conv(x, w, b, padding=1, stride=stride, activation="relu")
    monkeypatch.setattr(arrays, "_CACHED", 0)
    assert machine().lanes("float32") < 16 or arrays.streams(x, near, 16)
    np.testing.assert_array_equal(ops.conv(x, w, b, padding=1, stride=stride, activation="relu"), near)


@pytest.mark.parametrize("outputs", [6, 16])
def test_views_are_read_where_they_lie(outputs):
    w = draw(3, 3, 3, outputs)
    wide = draw(2, 15, 40, 3)
    view = wide[:, ::-2, 4:-5]
    np.testing.assert_array_equal(ops.conv(view, w, padding=1), ops.conv(view.copy(), w, padding=1))


def test_scratch_stays_within_the_limit():
    x, w = draw(8, 28, 28, 1), draw(5, 5, 1, 6)
    with xpconv.workspace_limit(4000):
        assert PIXELS in told(x, w, padding=2)
        assert ", 1 thread," in told(x, w, padding=2)
        limited = ops.conv(x, w, padding=2)
    np.testing.assert_array_equal(limited, ops.conv(x, w, padding=2))


def test_what_it_does_not_suit_is_left_to_the_direct_sum():
    for x, w, options in (
        ((1, 20, 20, 15), (3, 3, 15, 6), {}),  # more than 128 terms
        ((1, 20, 20, 1), (3, 3, 1, 33), {}),  # channels that are no whole vectors
        ((1, 20, 20, 2), (3, 3, 2, 6), {"dilation": 2}),
        ((1, 20, 3, 1), (3, 3, 1, 6), {"padding": 1}),  # lines too short for any vector
        ((1, 9, 9, 9, 1), (3, 3, 3, 1, 6), {}),
        ((1, 20, 20, 4), (3, 3, 2, 8), {"groups": 2}),
    ):
        assert "direct sum" in told(draw(*x), draw(*w), **options)
