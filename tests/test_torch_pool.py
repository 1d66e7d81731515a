"""Pooling, padding and resizing against PyTorch, values and gradients, in every rank and floating dtype."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import xpconv
from xpconv import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

TOLERANCE = {"float64": 1e-12, "float32": 3e-6, "float16": 2e-3}
SIZES = {1: (9,), 2: (9, 8), 3: (7, 6, 5)}
ranks = pytest.mark.parametrize("rank", SIZES)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def nchw(x):
    return torch.tensor(np.moveaxis(x, -1, 1).copy())


def nhwc(t):
    return np.moveaxis(t.detach().numpy(), 1, -1)


def draw(rank, dtype="float64", whole=False):
    x = np.random.default_rng(rank).standard_normal((2, *SIZES[rank], 3))
    return (np.round(2 * x) if whole else x).astype(dtype)


def agree(op, x, args, options, peer):
    """Values and gradient of op and of PyTorch, which works in float64 on what the dtype holds."""
    y, pullback = xpconv.vjp(op, x, *args, **options)
    t = nchw(x.astype("float64")).requires_grad_()
    expected = peer(t)
    y, *more = y if isinstance(y, tuple) else (y,)
    expected, *expected_more = expected if isinstance(expected, tuple) else (expected,)
    dy = np.random.default_rng(7).standard_normal(y.shape).astype(x.dtype)
    expected.backward(nchw(dy.astype("float64")))
    (dx,) = pullback(dy)[:1]
    assert (y.dtype, dx.dtype) == (x.dtype, x.dtype)
    tolerance = TOLERANCE[x.dtype.name]
    for got, true in ((y, nhwc(expected)), (dx, nhwc(t.grad))):
        np.testing.assert_allclose(got, true, rtol=tolerance, atol=tolerance * max(1, np.abs(true).max()))
    for got, true in zip(more, expected_more, strict=True):
        np.testing.assert_array_equal(got, nhwc(true))


def windows(*, dilations):
    """Kernel, stride, padding, dilation and ceil mode that PyTorch allows: it pads by half a kernel at most."""
    for k, s, p, d, ceil in itertools.product((2, 3), (None, 1, 2), (0, 1), dilations, (False, True)):
        yield k, {"stride": s, "padding": p, "dilation": d, "ceil_mode": ceil}


@ranks
@dtypes
@pytest.mark.parametrize("whole", [False, True], ids=["distinct", "ties"])
def test_max_pool_with_indices(rank, dtype, whole):
    peer = getattr(F, f"max_pool{rank}d")
    for k, options in windows(dilations=(1, 2)):
        agree(
            ops.max_pool,
            draw(rank, dtype, whole),
            (k,),
            {**options, "return_indices": True},
            lambda t, k=k, o=options: peer(t, k, return_indices=True, **o),
        )


@ranks
def test_max_pool_nan_as_pytorch(rank):
    x = draw(rank)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    for k, options in windows(dilations=(1,)):
        expected = nhwc(getattr(F, f"max_pool{rank}d")(nchw(x), k, **options))
        np.testing.assert_array_equal(ops.max_pool(x, k, **options), expected)


@ranks
@dtypes
@pytest.mark.parametrize("counted", [True, False])
def test_avg_pool(rank, dtype, counted):
    peer = getattr(F, f"avg_pool{rank}d")
    for k, options in windows(dilations=(1,)):
        theirs = {name: value for name, value in options.items() if name != "dilation"}
        agree(
            ops.avg_pool,
            draw(rank, dtype),
            (k,),
            {**options, "count_include_pad": counted},
            lambda t, k=k, o=theirs: peer(t, k, count_include_pad=counted, **o),
        )


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("divisor", [5, -3])
def test_avg_pool_divisor(rank, divisor):
    peer = getattr(F, f"avg_pool{rank}d")
    options = {"stride": 2, "padding": 1, "ceil_mode": True}
    agree(
        ops.avg_pool,
        draw(rank),
        (3,),
        {**options, "divisor": divisor},
        lambda t: peer(t, 3, divisor_override=divisor, **options),
    )


@ranks
@dtypes
@pytest.mark.parametrize("p", [1, 2, 3, 1.5])
def test_lp_pool(rank, dtype, p):
    x = np.abs(draw(rank, dtype)) + np.asarray(0.1, dtype)  # PyTorch takes powers of x itself, not of |x|
    for k, s in ((2, 2), (3, 1), (2, 3)):
        peer = getattr(F, f"lp_pool{rank}d")
        agree(ops.lp_pool, x, (k,), {"p": p, "stride": s}, lambda t, k=k, s=s, f=peer: f(t, float(p), k, s))


def test_lp_pool_of_signed_numbers():
    agree(ops.lp_pool, draw(2), (3,), {"stride": 2}, lambda t: F.lp_pool2d(t, 2.0, 3, 2))


@ranks
@dtypes
def test_max_unpool(rank, dtype):
    y, indices = ops.max_pool(draw(rank, dtype), 2, return_indices=True)
    peer, places = getattr(F, f"max_unpool{rank}d"), nchw(indices)
    size = SIZES[rank]
    agree(ops.max_unpool, y, (indices, size), {}, lambda t: peer(t, places, 2, output_size=size))


@ranks
@dtypes
@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("size", [1, 2, 5, 11])
def test_adaptive_pools(rank, dtype, pool, size):
    peer = getattr(F, f"adaptive_{pool}_pool{rank}d")
    agree(getattr(ops, f"adaptive_{pool}_pool"), draw(rank, dtype), (size,), {}, lambda t: peer(t, size))
    if size == 1:
        agree(getattr(ops, f"global_{pool}_pool"), draw(rank, dtype), (), {}, lambda t: peer(t, 1))


@ranks
@dtypes
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(rank, dtype, mode):
    theirs = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    value = 2.5 if mode == "constant" else 0.0
    for pairs in (((2, 1), (0, 3), (1, 2)), ((0, 0), (1, 0), (0, 1))):
        flat = [n for pair in reversed(pairs[:rank]) for n in pair]
        agree(
            ops.pad,
            draw(rank, dtype),
            (pairs[:rank],),
            {"mode": mode, "value": value},
            lambda t, flat=flat: F.pad(t, flat, mode=theirs, value=value if mode == "constant" else None),
        )


@ranks
@dtypes
@pytest.mark.parametrize(
    ("mode", "corners"), [("nearest", False), ("nearest-exact", False), ("bilinear", False), ("bilinear", True)]
)
@pytest.mark.parametrize("size", [1, 4, 7, 18])
def test_resize(rank, dtype, mode, corners, size):
    theirs = ("linear", "bilinear", "trilinear")[rank - 1] if mode == "bilinear" else mode
    options = {"align_corners": corners} if mode == "bilinear" else {}
    agree(
        ops.resize,
        draw(rank, dtype),
        (size,),
        {"mode": mode, **options},
        lambda t: F.interpolate(t, size=(size,) * rank, mode=theirs, **options),
    )
