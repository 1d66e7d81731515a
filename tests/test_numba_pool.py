"""Pooling in the numba engine beyond the laws: every layout of its vectors, every plan, any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import xpconv
from xpconv import ops

pytest.importorskip("llvmlite")

from xpconv.engines.numba import unpool

SLIDING = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": 1, "dilation": (2, 3), "padding": ((1, 2), (0, 1))},
    {"kernel_size": (2, 3), "stride": (3, 4), "dilation": (4, 2), "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": (9, 17), "stride": 1, "padding": ((4, 4), (8, 8))},  # 153 cells: compensated sums
)
# Channels: fewer than a register's lanes, one more, whole registers, four at a time.
LAYOUTS = [(3, options) for options in SLIDING] + [(channels, SLIDING[1]) for channels in (1, 17, 96, 64)]
on_layouts = pytest.mark.parametrize(("channels", "options"), LAYOUTS, ids=str)


def draw(shape, dtype="float32", seed=0):
    """Small whole numbers, so that there are ties and every sum is exact, with a few nan and infinities."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def spoilt(x):
    rng = np.random.default_rng(5)
    for value in (np.nan, np.nan, -np.inf, np.inf):
        x[tuple(rng.integers(x.shape))] = value
    return x


def answers(engine, op, x, dy=None, **options):
    """Results and dx, from the same dy."""
    with xpconv.use_engine(engine):
        results, pullback = xpconv.vjp(op, x, **options)
    results = results if isinstance(results, tuple) else (results,)
    return (*results, *pullback(draw(results[0].shape, x.dtype, seed=1) if dy is None else dy))


def assert_same(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [16, 64])
def test_what_goes_past_the_caches_is_the_same(monkeypatch, channels):
    from xpconv.engines.numba import arrays
    from xpconv.engines.numba.machine import machine

    x = spoilt(draw((2, 30, 31, channels)))
    with xpconv.use_engine("numba"):
        near = ops.max_pool(x, 3, stride=2, padding=1)
        monkeypatch.setattr(arrays, "_CACHED", 0)
        assert machine().lanes("float32") < 16 or arrays.streams(x, near, 16)
        np.testing.assert_array_equal(ops.max_pool(x, 3, stride=2, padding=1), near)


@on_layouts
@pytest.mark.parametrize("ties", ["first", "all"])
def test_max_pool_selects_what_portable_selects(channels, options, ties):
    x = spoilt(draw((2, 11, 12, channels)))
    for more in ({"ties": ties}, {"ties": ties, "return_indices": True}):
        assert_same(*(answers(engine, ops.max_pool, x, **options, **more) for engine in ("numba", "portable")))


@on_layouts
@pytest.mark.parametrize("more", [{}, {"count_include_pad": False}, {"divisor": -0.75}], ids=str)
def test_avg_pool_agrees_with_portable(channels, options, more):
    x = np.random.default_rng(0).standard_normal((2, 11, 12, channels))
    mine, theirs = (answers(engine, ops.avg_pool, x, **options, **more) for engine in ("numba", "portable"))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@on_layouts
@pytest.mark.parametrize("p", [1, 2, 2.5])
def test_lp_pool_agrees_with_portable(channels, options, p):
    x = np.random.default_rng(0).standard_normal((2, 11, 12, channels))
    x[:, :4, :4] = 0
    for given in (x, spoilt(x.copy())):
        with np.errstate(invalid="ignore"):
            mine, theirs = (answers(engine, ops.lp_pool, given, p=p, **options) for engine in ("numba", "portable"))
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("images", [1, 5])
def test_unpooled_cells_go_where_portable_puts_them(images):
    """Also where targets of an image are shared out, with cells that are overwritten and without."""
    rng = np.random.default_rng(3)
    x, several = draw((images, 40, 30, 50)), rng.integers(0, 4000, (images, 40, 30, 50))
    distinct = np.stack([rng.permutation(4000)[:1200] for _ in range(images * 50)], axis=-1)
    for indices in (several, np.moveaxis(distinct.reshape(40, 30, images, 50), 2, 0)):
        options = {"indices": indices, "output_size": (50, 80)}
        mine, theirs = (answers(engine, ops.max_unpool, x, **options) for engine in ("numba", "portable"))
        assert_same(mine[:2], theirs[:2])
        with xpconv.workspace_limit(1):  # as little as can be: still no pass over all cells for each target
            assert_same(answers("numba", ops.max_unpool, x, **options)[:2], theirs[:2])
            assert unpool.shared_out(x, mine[0], scratch=4)[1] <= 32 * images


@pytest.mark.parametrize("shape", [(2, 7, 5, 300), (1, 4, 20, 513), (2, 33, 3), (1, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_adaptive_pools_agree_with_portable(shape, size):
    x = np.random.default_rng(0).standard_normal(shape)
    mine, theirs = (answers(engine, ops.adaptive_avg_pool, x, output_size=size) for engine in ("numba", "portable"))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    x = spoilt(draw(shape))
    assert_same(*(answers(engine, ops.adaptive_max_pool, x, output_size=size) for engine in ("numba", "portable")))


@pytest.mark.parametrize("op", [ops.max_pool, ops.avg_pool])
@pytest.mark.parametrize("options", SLIDING[1:3], ids=str)
def test_results_do_not_depend_on_threads(op, options):
    x = np.random.default_rng(0).standard_normal((3, 60, 50, 40), dtype=np.float32)
    found = []
    for threads in (1, 2, 3):
        with xpconv.set_num_threads(threads):
            found.append(answers("numba", op, x, **options))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


@pytest.mark.parametrize("cells", [(100, 100), (16, 16), (3000,)])
@pytest.mark.parametrize("channels", [3, 256])
def test_means_of_constant_images_do_not_drift(cells, channels):
    x = np.full((1, *cells, channels), 0.1, dtype=np.float32)
    with xpconv.use_engine("numba"):
        y = ops.global_avg_pool(x)
    np.testing.assert_allclose(y, np.float64(x.flat[0]), rtol=8 * 2.0**-24)


def test_the_gradient_of_many_windows_on_a_cell_does_not_drift():
    x = np.zeros((1, 6000, 2), dtype=np.float32)
    dy = np.full((1, 3001, 2), 0.1, dtype=np.float32)
    for options, op in (({"divisor": 1.0}, ops.avg_pool), ({}, ops.max_pool)):
        *_, dx = answers("numba", op, x + (np.arange(6000) == 3000)[:, None], dy, kernel_size=3000, stride=1, **options)
        np.testing.assert_allclose(dx[0, 3000], 3000 * np.float64(dy.flat[0]), rtol=8 * 2.0**-24)


def test_infinite_sums_stay_infinite():
    x = np.ones((1, 100, 1), dtype=np.float32)
    x[0, 40], x[0, 90] = np.inf, 3e38
    with xpconv.use_engine("numba"):
        assert ops.global_avg_pool(x).item() == np.inf
        assert ops.avg_pool(np.full((1, 80, 1), 3e38, np.float32), 80).item() == np.inf


def test_unaligned_arrays_are_read_right():
    x = draw((1, 6, 6, 5))
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    shifted[...] = x
    assert_same(*(answers("numba", ops.max_pool, a, kernel_size=2) for a in (shifted, x)))


def test_what_kernels_do_not_take_is_declined_with_a_reason():
    with xpconv.use_engine("numba"):
        for x in (np.ones((1, 4, 4, 1), np.float16), np.ones((1, 4, 4, 1), int)):
            with pytest.raises(xpconv.EngineError, match=x.dtype.name):
                ops.max_pool(x, 2)
        with pytest.raises(xpconv.EngineError, match="1e-300"):
            ops.avg_pool(np.ones((1, 4, 1)), 2, divisor=1e-300)
        with pytest.raises(xpconv.EngineError, match="300000"):
            ops.global_max_pool(np.ones((1, 300_000, 1), np.float32))
