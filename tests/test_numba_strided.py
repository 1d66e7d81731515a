"""Compiled copies of what is not contiguous are NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from xpconv.engines.numba import parts
from xpconv.engines.numba.arrays import copied, dense

RNG = np.random.default_rng(0)
WRITE, CONCAT = parts.PRIMITIVES["write"], parts.PRIMITIVES["concat"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("axes", range(1, 6))
def test_parts_are_written_to_where_they_belong(axes, dtype):
    for _ in range(20):
        shape = tuple(int(n) for n in RNG.integers(0, 40 if axes < 3 else 9, axes))
        x, y = ((RNG.normal(size=[3 * n + 2 for n in shape]) * 99).astype(dtype) for _ in range(2))
        cut = [slice(None, n * step, step) for n, step in zip(shape, RNG.integers(1, 4, axes), strict=True)]
        turned = [slice(None, None, -1)] * (axes - 1)
        part, where = x[(*turned, slice(None))][(*cut[:-1], slice(shape[-1]))], (*cut[:-1], slice(1, 1 + shape[-1]))
        expected = y.copy()
        expected[where] = part
        if axes == 1:
            assert WRITE.declines(y[where], part)
            continue
        assert WRITE.declines(y[where], part) is None
        WRITE.run(y[where], part)
        assert np.array_equal(y, expected)


def test_large_parts_are_copied_by_all_threads():
    x = RNG.normal(size=(8, 33, 31, 40)).astype("float32")
    for part in (x[..., 3:30], x[:, ::2, ::-3], x.transpose(2, 0, 1, 3), x[:, None, :, :, 3:30], x[..., ::2]):
        for copy in (copied(part), dense(part)):
            assert copy.flags.c_contiguous
            assert np.array_equal(copy, part)
            assert not np.shares_memory(copy, x)


def test_numbers_that_lie_across_words_and_objects_are_left_to_numpy():
    x = np.frombuffer(bytearray(8 * 9000 + 1), np.uint8)[1:].view("float64").reshape(3, 30, 100)
    x[...] = RNG.normal(size=x.shape)
    assert not x.flags.aligned
    assert np.array_equal(dense(x), x)
    things = np.full((4, 4), None)
    for part in (x, things):
        assert WRITE.declines(part, part)


def test_channels_are_joined():
    whole = RNG.normal(size=(3, 5, 4, 30))
    pieces = whole[..., :7], whole[..., 7:8], whole[..., 8:8], whole[..., 8:]
    assert CONCAT.declines(*pieces) is None
    assert np.array_equal(CONCAT.run(*pieces), whole)
    assert "one dtype" in CONCAT.declines(whole, whole.astype("float32"))
    assert CONCAT.declines(whole[..., ::2], whole)
    assert CONCAT.declines(whole.astype("float16"), whole.astype("float16"))
