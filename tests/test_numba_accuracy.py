"""How accurate compiled convolution is: Winograd's algorithm beside direct sums, large tiles within their bound."""

from __future__ import annotations

import numpy as np
import pytest
from numba_conv import algorithms, compiled_alone, direct_only, draw, exact, on

import xpconv
from xpconv import ops
from xpconv.parity.bounds import NAMED, error_in_bounds

pytestmark = compiled_alone

FAST = 12.0  # the bound's constant for F(4×4)
WIDE = [  # x, w, padding: large enough for Winograd in all directions
    ((2, 10, 12, 32), (3, 3, 32, 32), 1),
    ((1, 12, 13, 64), (3, 3, 64, 48), 0),
    ((3, 11, 9, 48), (3, 3, 48, 64), ((3, 4), (2, 0))),
]


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
