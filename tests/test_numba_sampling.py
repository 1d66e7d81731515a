"""Padding and resizing in the numba engine beyond the laws: every layout of its vectors, every kind of table."""

from __future__ import annotations

import numpy as np
import pytest

import xpconv
from xpconv import ops

pytest.importorskip("llvmlite")

PADS = (
    ((1, 1), (1, 1)),
    ((0, 2), (3, 0)),
    ((7, 4), (9, 13)),  # more than the axis has: cells have several copies on each side
)
GRIDS = [
    {"output_size": size, **options}
    for size in ((14, 10), (9, 13), (3, 2), (1, 1), (7, 5))
    for options in (
        {"mode": "nearest"},
        {"mode": "nearest-exact"},
        {"mode": "bilinear"},
        {"mode": "bilinear", "align_corners": True},
    )
]
CHANNELS = (3, 85)  # short vectors; four at a time, one, and a part of one


def draw(*shape, dtype="float32", seed=0):
    """Small whole numbers, so that sums are exact."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def answers(engine, op, x, **options):
    """y, and dx from the same dy."""
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(op, x, **options)
        return y, *pullback(draw(*y.shape, dtype=x.dtype, seed=1))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("padding", PADS, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_padding_is_portables(channels, padding, mode):
    x = draw(2, 6, 5, channels)
    for mine, theirs in zip(
        *(answers(engine, ops.pad, x, padding=padding, mode=mode, value=-1.5) for engine in ("numba", "portable")),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("options", GRIDS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("channels", CHANNELS)
def test_resizing_is_portables(channels, options):
    x = draw(2, 7, 5, channels)
    for mine, theirs in zip(
        *(answers(engine, ops.resize, x, **options) for engine in ("numba", "portable")), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64"])
@pytest.mark.parametrize("channels", [1, 3, 70])
def test_integers_are_copied_whatever_their_size(dtype, channels):
    x = (draw(2, 4, 5, channels, dtype="int64") % 2).astype(dtype)
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(x.shape)  # lies across words
    shifted[...] = x
    with xpconv.use_engine("numba"):
        padded = ops.pad(shifted, ((1, 0), (2, 20)), value=1)
        np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (1, 0), (2, 20), (0, 0)), constant_values=1))
        if dtype != "bool":
            np.testing.assert_array_equal(ops.resize(x, (8, 15)), x.repeat(2, axis=1).repeat(3, axis=2))


@pytest.mark.parametrize(
    ("op", "options"),
    [(ops.pad, {"padding": 2, "mode": "reflect"}), (ops.resize, {"output_size": (31, 90), "mode": "bilinear"})],
    ids=["pad", "resize"],
)
def test_neither_threads_nor_stores_past_the_caches_change_a_bit(monkeypatch, op, options):
    from xpconv.engines.numba import arrays

    x = np.random.default_rng(0).standard_normal((3, 40, 50, 80), dtype=np.float32)
    found = []
    for threads, cached in ((1, 2**30), (2, 0), (3, 2**30)):
        monkeypatch.setattr(arrays, "_CACHED", cached)
        with xpconv.set_num_threads(threads):
            found.append(answers("numba", op, x, **options))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_kernels_do_not_take_is_declined_with_a_reason():
    def refused(match, op, x, *args, **options):
        with xpconv.use_engine("numba"), pytest.raises(xpconv.EngineError, match=match):
            op(x, *args, **options)

    refused("borders of complex", ops.pad, np.ones((1, 4, 4, 1), np.complex64), 1, value=1j)
    refused("float16", ops.resize, np.ones((1, 4, 4, 1), np.float16), 8)
    refused("300002", ops.pad, np.ones((1, 300_000, 1), np.float32), 1)
    refused("at most 128 .* not 200", ops.pad, np.ones((1, 4, 1), np.float32), ((199, 0),), mode="edge")
    refused("at most 128 .* not 200", ops.resize, np.ones((1, 1, 4, 1), np.float32), (200, 4))
    with xpconv.workspace_limit(4000):
        refused("workspace_limit", ops.resize, np.ones((1, 4, 9, 64), np.float32), 9, mode="bilinear")
        assert ops.resize(np.ones((1, 4, 9, 64), np.float32), 9, mode="bilinear").all()
