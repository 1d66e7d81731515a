"""What pools and padding select, in every library: nan, infinities, integers, and little scratch."""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import backend, ops

BACKENDS = ("numpy", "torch", "array_api_strict", "array_api_strict:device1", "cupy")
on_backends = pytest.mark.parametrize("name", BACKENDS)
VALUES = {
    "nan": ("float64", [np.nan, 1.0, -3.0, 2.0]),
    "infinities": ("float32", [-np.inf, np.inf, np.nan]),
    "least": ("float64", [-np.inf]),
    "float16": ("float16", [-1.5, 2.0, 2.5]),
    "int8": ("int8", [-128, 127, 0]),
    "uint8": ("uint8", [0, 255, 7]),
    "int32": ("int32", [-(2**31), 5]),
    "int64": ("int64", [2**62, 2**62 + 1]),
}


def on(name, x):
    if missing(name):
        pytest.skip(missing(name))
    return backend.get(name).asarray(x.copy())


def draw(values, shape, seed=0):
    dtype, among = VALUES[values]
    return np.random.default_rng(seed).choice(np.asarray(among, dtype), shape)


@on_backends
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize("scratch", [64, 2**22])
def test_max_pool_selects_what_the_loops_select(name, values, ties, scratch):
    if name.startswith("array_api_strict") and values == "float16":
        pytest.skip("array_api_strict has no float16")
    options = {"stride": (1, 2), "padding": ((2, 0), (1, 1)), "dilation": (2, 1), "ties": ties, "return_indices": True}
    x = draw(values, (2, 6, 5, 2))
    with xpconv.use_engine("reference"):
        expected, pullback = xpconv.vjp(ops.max_pool, x, 3, **options)
    with xpconv.workspace_limit(scratch):
        got, portable_pullback = xpconv.vjp(ops.max_pool, on(name, x), 3, **options)
        dy = np.arange(1, expected[0].size + 1).reshape(expected[0].shape).astype(x.dtype)
        (dx,) = portable_pullback(on(name, dy))
    for mine, theirs in zip((*got, dx), (*expected, *pullback(dy)), strict=True):
        assert mine is theirs is None or np.array_equal(
            xpconv.to_numpy(mine), theirs, equal_nan=theirs.dtype.kind == "f"
        )


@on_backends
def test_global_max_pool_leads_to_the_first_nan(name):
    x = np.asarray([[[1.0], [np.nan], [np.nan]], [[2.0], [2.0], [-np.inf]]])
    y, pullback = xpconv.vjp(ops.global_max_pool, on(name, x))
    assert np.array_equal(xpconv.to_numpy(y)[:, 0, 0], [np.nan, 2.0], equal_nan=True)
    assert xpconv.to_numpy(pullback(on(name, np.ones((2, 1, 1))))[0])[:, :, 0].tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("op", [ops.max_pool, ops.adaptive_max_pool])
def test_an_infinite_gradient_stays_in_its_cell(op):
    x = np.asarray([[[1.0], [3.0], [2.0], [0.0]]])
    dy = np.asarray([[[np.inf], [np.nan]]])
    _, pullback = xpconv.vjp(op, x, 2)
    assert np.array_equal(pullback(dy)[0][0, :, 0], [0.0, np.inf, np.nan, 0.0], equal_nan=True)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_an_infinite_gradient_stays_off_the_cells_that_were_not_sampled(mode):
    _, pullback = xpconv.vjp(ops.resize, np.ones((1, 6, 1)), 2, mode=mode)
    dx = pullback(np.full((1, 2, 1), np.inf))[0]
    assert np.sum(np.isinf(dx)) == 2
    assert np.sum(dx == 0) == 4


def test_lp_pool_neither_overflows_nor_vanishes():
    x = np.asarray([[[3e200], [4e200], [3e-200], [-4e-200]]])
    y, pullback = xpconv.vjp(ops.lp_pool, x, 2)
    np.testing.assert_allclose(y[0, :, 0], [5e200, 5e-200], rtol=1e-15)
    np.testing.assert_allclose(pullback(np.ones_like(y))[0][0, :, 0], [0.6, 0.8, 0.6, -0.8], rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [64, 150, 1e5])
def test_a_norm_of_high_power_is_near_the_largest_magnitude(p, dtype):
    x = np.asarray([[[1.9], [-1.9], [1.0], [0.1]]], dtype=dtype)
    np.testing.assert_allclose(ops.lp_pool(x, 4, p=p), np.full((1, 1, 1), 1.9 * 2 ** (1 / p)), rtol=1e-6)


@on_backends
@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_the_gradient_of_a_sum_of_magnitudes_is_the_sign_whatever_else_the_window_holds(name, engine):
    x = np.asarray([[[1e-30], [-1e30], [-1e-37], [np.inf], [0.0], [np.nan], [-1.0], [np.nan]]], dtype="float32")
    with xpconv.use_engine(engine):
        _, pullback = xpconv.vjp(ops.lp_pool, on(name, x), 2, p=1)
        dx = xpconv.to_numpy(pullback(on(name, np.full((1, 4, 1), 3, "float32")))[0])
    assert np.array_equal(dx[0, :, 0], [3, -3, -3, 3, 0, np.nan, -3, np.nan], equal_nan=True)


@on_backends
def test_max_unpool_undoes_max_pool_and_the_last_of_equals_stays(name):
    y, indices = ops.max_pool(draw("int64", (2, 6, 4, 3)), 2, return_indices=True)
    once = ops.max_unpool(on(name, y), on(name, indices), (6, 4))
    assert np.array_equal(xpconv.to_numpy(ops.max_pool(once, 2)), y)
    x, same = np.asarray([[[1.0], [2.0], [3.0]]]), np.asarray([[[2], [0], [2]]])
    out, pullback = xpconv.vjp(ops.max_unpool, on(name, x), on(name, same), 4)
    assert xpconv.to_numpy(out)[0, :, 0].tolist() == [2, 0, 3, 0]
    dx, nothing = pullback(on(name, np.asarray([[[5.0], [6.0], [7.0], [8.0]]])))
    assert nothing is None
    assert xpconv.to_numpy(dx)[0, :, 0].tolist() == [0, 5, 7]


@on_backends
def test_max_unpool_indices_out_of_range(name):
    x, indices = on(name, np.ones((2, 3, 1))), on(name, np.asarray([[[-1], [0], [4]], [[4], [3], [9]]]))
    if name == "numpy":
        with pytest.raises(ValueError, match=r"indices must lie in 0\.\.3 for an output of \(4,\)"):
            ops.max_unpool(x, indices, 4)
    else:
        out, pullback = xpconv.vjp(ops.max_unpool, x, indices, 4)
        assert xpconv.to_numpy(out)[:, :, 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
        assert xpconv.to_numpy(pullback(out)[0])[:, :, 0].tolist() == [[0, 1, 0], [0, 1, 0]]


@on_backends
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "bool", "complex64"])
def test_pad_is_numpys(name, mode, dtype):
    x = np.random.default_rng(0).integers(0, 9, (2, 4, 3, 2)).astype(dtype)
    for before, after in ((0, 0), (1, 2), (7, 5)):
        wanted = np.pad(x, ((0, 0), (before, after), (after, before), (0, 0)), mode=mode)
        got = ops.pad(on(name, x), ((before, after), (after, before)), mode=mode)
        assert np.array_equal(xpconv.to_numpy(got), wanted)


BAD = {
    "integer average": (lambda x: ops.avg_pool(x.astype("int32"), 2), TypeError, ["not int32", "x.astype('float32')"]),
    "integer Lp": (lambda x: ops.lp_pool(x.astype("uint8"), 2), TypeError, ["not uint8", "x.astype('float32')"]),
    "complex maximum": (lambda x: ops.max_pool(x + 1j, 2), TypeError, ["not complex128"]),
    "only padding": (lambda x: ops.max_pool(x, 2, padding=2), ValueError, ["holds only padding", "window 0"]),
    "unknown ties": (lambda x: ops.max_pool(x, 2, ties="last"), ValueError, ["'last'", "'first', 'all'"]),
    "divisor 0": (lambda x: ops.avg_pool(x, 2, divisor=0), ValueError, ["divisor must not be 0"]),
    "infinite p": (lambda x: ops.lp_pool(x, 2, p=np.inf), ValueError, ["p must be positive and finite", "max_pool"]),
    "indices of another shape": (
        lambda x: ops.max_unpool(x, np.zeros((1, 2), "int64"), 8),
        ValueError,
        ["shape of x", "indices (1, 2) int64"],
    ),
    "floating indices": (lambda x: ops.max_unpool(x, x, 8), TypeError, ["indices must be int64"]),
    "output size 0": (lambda x: ops.adaptive_avg_pool(x, 0), ValueError, ["output_size must be at least 1"]),
    "three output sizes": (lambda x: ops.resize(x, (1, 2, 3)), ValueError, ["2 of them", "(1, 2, 3)"]),
    "empty axis": (lambda x: ops.global_max_pool(x[:, :0]), ValueError, ["must hold a cell", "H=0"]),
    "negative padding": (lambda x: ops.pad(x, -1), ValueError, ["at least 0"]),
    "padding by name": (lambda x: ops.pad(x, "same"), ValueError, ["'same' is not known", "pairs"]),
    "unknown mode": (lambda x: ops.pad(x, 1, mode="mirror"), ValueError, ["'mirror'", "'reflect'"]),
    "value out of range": (lambda x: ops.pad(x.astype("uint8"), 1, value=300), ValueError, ["uint8 does not hold"]),
    "nothing to copy": (lambda x: ops.pad(x[:, :0], 1, mode="edge"), ValueError, ["'edge'", "empty axis"]),
    "corners of nearest": (lambda x: ops.resize(x, 2, align_corners=True), ValueError, ["no meaning", "'nearest'"]),
    "integer bilinear": (lambda x: ops.resize(x.astype(int), 2, mode="bilinear"), TypeError, ["not int64"]),
}


@pytest.mark.parametrize("name", BAD)
def test_the_message_says_what_is_wrong(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind) as caught:
        call(np.ones((1, 4, 4, 2)))
    for word in words:
        assert word in str(caught.value)
