"""Adaptive pooling: window i of o over n cells runs from floor(i n / o) to ceil((i + 1) n / o), axis after axis.

The windows of different axes are independent, so a mean over a box is a mean of means and a maximum one of maxima.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from xpconv.backend import Array, cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.folds import where_won
from xpconv.engines.portable.memory import budget, finite, itemsize
from xpconv.engines.portable.pieces import boxes
from xpconv.engines.portable.sums import axis_sum

Sizes = tuple[int, ...]


def adaptive_avg_pool(x: Array, *, needs: Needs, output_size: Sizes) -> tuple[Array, Any]:
    """y = the mean of each window, first axis first: (N, *size, C) -> (N, *output_size, C)."""
    sizes = tuple(x.shape[1:-1])
    y = _empty(x, output_size)
    for planes in _planes(x, [(*output_size[: a + 1], *sizes[a + 1 :]) for a in range(len(sizes))]):
        part = x[planes]
        for axis, (n, o) in enumerate(zip(sizes, output_size, strict=True), start=1):
            means = _empty(part, (*part.shape[1:axis], o, *part.shape[axis + 1 : -1]))
            for out, cells, count in _windows(axis, n, o):
                means[out] = axis_sum(part[cells], axis) / count
            part = means
        y[planes] = part
    return y, sizes if any(needs) else None


def adaptive_avg_pool_grad(sizes: Sizes, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy by the number of cells, at each cell of its window: (N, *output_size, C) -> (N, *size, C)."""
    output_size = tuple(dy.shape[1:-1])
    dx = _zeros(dy, sizes)
    for images, _, channels in _planes(dy, [(*output_size[:a], *sizes[a:]) for a in range(1, len(sizes) + 1)]):
        part = dy[images, ..., channels]
        for axis, n in reversed(list(enumerate(sizes[1:], start=2))):
            shares = _zeros(part, (*part.shape[1:axis], n, *part.shape[axis + 1 : -1]))
            for cells, share in _shares(part, axis, n):
                shares[cells] += share
            part = shares
        for cells, share in _shares(part, 1, sizes[0]):
            dx[images, cells[1], ..., channels] += share
    return (dx,)


def _shares(part: Array, axis: int, n: int) -> Iterator[tuple[Any, Array]]:
    """Indices of the n cells of an axis and what they have of the means; no cell more than twice or so."""
    xp, o = namespace(part), part.shape[axis]
    if o <= n:
        for out, cells, count in _windows(axis, n, o):
            yield cells, part[out] / count
        return
    counts = [count for *_, count in _windows(axis, n, o)]
    by = xp.asarray(counts, dtype=part.dtype, device=part.device)
    part = part / xp.reshape(by, (o, *(1,) * (part.ndim - 1 - axis)))
    for cell, outs, _ in _windows(axis, o, n):
        yield cell, axis_sum(part[outs], axis)


class _Winners(NamedTuple):
    """Residuals: for each axis, of what was left of the others then, the cell that won each of its windows.

    Cells are counted from the end of the axis, from 1, so that the first of several has the largest number.
    """

    numbers: list[Array]
    sizes: Sizes


def adaptive_max_pool(x: Array, *, needs: Needs, output_size: Sizes) -> tuple[Array, Any]:
    """y = the maximum of each window: (N, *size, C) -> (N, *output_size, C).

    Last axis first, so that of equal cells the first in row-major order wins.
    """
    xp = namespace(x)
    sizes = tuple(x.shape[1:-1])
    shapes = [(*sizes[:a], *output_size[a:]) for a in range(len(sizes))]
    y = _empty(x, output_size)
    kept = zip(shapes, sizes, strict=True) if any(needs) else ()
    winners = [_empty(x, shape, xp.uint8 if n <= 255 else xp.int32) for shape, n in kept]
    for planes in _planes(x, shapes):
        part = x[planes]
        for axis, (n, o) in reversed(list(enumerate(zip(sizes, output_size, strict=True), start=1))):
            best = _empty(part, (*part.shape[1:axis], o, *part.shape[axis + 1 : -1]))
            for out, cells, _ in _windows(axis, n, o):
                best[out] = xp.max(part[cells], axis=axis, keepdims=True)
            if winners:
                winners[axis - 1][planes] = _winners(part, best, axis, winners[axis - 1].dtype)
            part = best
        y[planes] = part
    return y, _Winners(winners, sizes) if any(needs) else None


def adaptive_max_pool_grad(residuals: _Winners, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy at the cells that won, one axis after the other: (N, *output_size, C) -> (N, *size, C)."""
    sizes, output_size = residuals.sizes, tuple(dy.shape[1:-1])
    dx = _empty(dy, sizes)
    for planes in _planes(dy, [(*sizes[: a + 1], *output_size[a + 1 :]) for a in range(len(sizes))]):
        part = dy[planes]
        for axis, (n, o) in enumerate(zip(sizes, output_size, strict=True), start=1):
            winners = residuals.numbers[axis - 1][planes]
            numbers = _numbers(n, axis, winners)
            tame = finite(part)
            shares = _zeros(part, (*part.shape[1:axis], n, *part.shape[axis + 1 : -1]))
            if o <= n:
                for out, cells, _ in _windows(axis, n, o):
                    shares[cells] += where_won(winners[out] == numbers[cells], part[out], tame)
            else:
                for cell, outs, _ in _windows(axis, o, n):
                    shares[cell] = axis_sum(where_won(winners[outs] == numbers[cell], part[outs], tame), axis)
            part = shares
        dx[planes] = part
    return (dx,)


def _winners(part: Array, best: Array, axis: int, dtype: Any) -> Array:
    """The first cell along an axis that is the maximum of its window, or its nan, as `_Winners` keeps it."""
    xp = namespace(part)
    winners = xp.empty(best.shape, dtype=dtype, device=part.device)
    numbers = _numbers(part.shape[axis], axis, winners)
    tame = finite(best)
    for out, cells, _ in _windows(axis, part.shape[axis], best.shape[axis]):
        won = part[cells] == best[out]
        if not tame:
            won = won | (part[cells] != part[cells])
        winners[out] = xp.max(cast(won, dtype) * numbers[cells], axis=axis, keepdims=True)
    return winners


def _numbers(n: int, axis: int, like: Array) -> Array:
    """The numbers n..1 of the cells of an axis, in the dtype of winners, to be broadcast against them."""
    xp = namespace(like)
    numbers = xp.asarray(list(range(n, 0, -1)), dtype=like.dtype, device=like.device)
    return xp.reshape(numbers, (*(1,) * axis, n, *(1,) * (like.ndim - 1 - axis)))


def _windows(axis: int, n: int, o: int) -> Iterator[tuple[Any, Any, int]]:
    """Indices of each output of an axis and of the cells under it, and their number.

    With n and o exchanged: indices of each cell and of the outputs that it lies under.
    """
    for i in range(o):
        start, stop = i * n // o, -(-(i + 1) * n // o)
        before = (slice(None),) * axis
        yield (*before, slice(i, i + 1), ...), (*before, slice(start, stop), ...), stop - start


def _planes(x: Array, stages: list[Sizes]) -> Iterator[tuple[Any, ...]]:
    """Index of some images and channels at a time, of which two neighbouring stages fit the budget."""
    scratch = 2 * max(math.prod(shape) for shape in stages) * itemsize(x)
    for images, channels in boxes((x.shape[0], x.shape[-1]), budget(x) // max(scratch, 1)):
        yield (images, ..., channels)


def _empty(x: Array, spatial: Sizes, dtype: Any = None) -> Array:
    shape = (x.shape[0], *spatial, x.shape[-1])
    return namespace(x).empty(shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def _zeros(x: Array, spatial: Sizes) -> Array:
    return namespace(x).zeros((x.shape[0], *spatial, x.shape[-1]), dtype=x.dtype, device=x.device)


PRIMITIVES = {
    "adaptive_avg_pool": Primitive(adaptive_avg_pool, adaptive_avg_pool_grad),
    "adaptive_max_pool": Primitive(adaptive_max_pool, adaptive_max_pool_grad),
}
