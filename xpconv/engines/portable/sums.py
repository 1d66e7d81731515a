"""Sums in blocks: along axes, of matrix products, and box by box."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from xpconv.backend import Array, namespace
from xpconv.engines.portable.memory import Box, itemsize

# Terms that one sum may take: longer sums are sums of such blocks, so that rounding grows with the number of blocks
# and not of terms (a constant image is the worst case: every rounding has the same sign). A matrix product keeps
# several accumulators for each of its sums; what is added up array by array, or along an axis, keeps one.
BLOCK = 128  # of a matrix product
RUN = 32  # of one running sum


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Consecutive slices of at most ``size``."""
    for i in range(0, n, size):
        yield slice(i, min(i + size, n))


def as_rows(x: Array) -> Array:
    """(..., C) -> (rows, C)."""
    return namespace(x).reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def plus(total: Array | None, term: Array) -> Array:
    """total + term, in place; the first term is the total (and is written to from then on)."""
    if total is None:
        return term
    total += term
    return total


def row_product(rows: Array, w: Array) -> Array:
    """rows @ w, as a sum over blocks of terms: (rows, in), (in, out) -> (rows, out)."""
    total: Array = None
    for terms in blocks(w.shape[0]):
        total = plus(total, rows[:, terms] @ w[terms, :])
    return total


def block_product(a: Array, b: Array, limit: int) -> Array:
    """a.T @ b over many rows, in blocks of 128 rows: (rows, m), (rows, n) -> (m, n)."""
    xp = namespace(a)
    m, n = a.shape[1], b.shape[1]
    together = max(1, min(RUN, limit // max(4 * m * n * itemsize(a), 1)))  # blocks in one batched product
    total = RunningSum(a, (m, n), terms=-(-a.shape[0] // (together * BLOCK)))
    everywhere = (slice(None), slice(None))
    whole = a.shape[0] // BLOCK * BLOCK
    for rows in blocks(whole, together * BLOCK):
        k = (rows.stop - rows.start) // BLOCK
        left = xp.reshape(a[rows, :], (k, BLOCK, m))
        right = xp.reshape(b[rows, :], (k, BLOCK, n))
        total.add(everywhere, xp.sum(xp.matrix_transpose(left) @ right, axis=0, dtype=a.dtype))
    if whole < a.shape[0]:
        total.add(everywhere, a[whole:, :].T @ b[whole:, :])
    return total.total


def block_sum(x: Array) -> Array:
    """Sum over all axes but the last, in blocks of blocks: (..., C) -> (C,)."""
    return axis_sum(as_rows(x), 0)[0, :]


def axis_sum(x: Array, axis: int) -> Array:
    """Sum along one axis, which stays with size 1, in blocks of blocks."""
    xp, before = namespace(x), (slice(None),) * axis
    while x.shape[axis] > RUN:
        n = x.shape[axis]
        whole = n // RUN * RUN
        shape = (*x.shape[:axis], whole // RUN, RUN, *x.shape[axis + 1 :])
        parts = xp.sum(xp.reshape(x[(*before, slice(0, whole), ...)], shape), axis=axis + 1, dtype=x.dtype)
        if whole < n:
            rest = xp.sum(x[(*before, slice(whole, n), ...)], axis=axis, keepdims=True, dtype=x.dtype)
            parts = xp.concat([parts, rest], axis=axis)
        x = parts
    return xp.sum(x, axis=axis, keepdims=True, dtype=x.dtype)


def axes_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum along several axes, which stay with size 1, in blocks of blocks."""
    for axis in axes:
        x = axis_sum(x, axis)
    return x


class RunningSum:
    """A sum that grows box by box; Kahan's compensation keeps its error from growing with their number.

    ``terms`` is how many will be added to one cell, where that is known: a few need no compensation.
    """

    def __init__(self, like: Array, shape: tuple[int, ...], terms: float = math.inf) -> None:
        xp = namespace(like)
        self.total = xp.zeros(shape, dtype=like.dtype, device=like.device)
        self._lost = xp.zeros(shape, dtype=like.dtype, device=like.device) if terms > RUN else None

    def add(self, box: Box, part: Array) -> None:
        """Add the sums of one box, whose summed axes have size 1."""
        at = within(self.total, box)
        if self._lost is None:
            self.total[at] += part
            return
        xp = namespace(part)
        part = part - self._lost[at]
        total = self.total[at] + part
        with np.errstate(invalid="ignore"):  # inf - inf
            lost = (total - self.total[at]) - part
        # Of an infinite total nothing is lost that could be told: it stays infinite, as plain addition leaves it.
        self._lost[at] = xp.where(xp.isfinite(lost), lost, xp.zeros_like(lost))
        self.total[at] = total


def within(reduced: Array, box: Box) -> Box:
    """Where a box of x lies in an array whose summed axes have size 1."""
    return tuple(slice(0, 1) if n == 1 else s for n, s in zip(reduced.shape, box, strict=True))
