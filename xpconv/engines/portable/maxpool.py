"""Max pooling: the value by folding, the winner by comparing each real cell with the value.

Padding is filled with what no cell loses to, and only real cells are asked whether they won: padding can neither win
a tie nor receive a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from xpconv.backend import Array, cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.folds import fold, largest, outputs, pool_boxes, real, where_won
from xpconv.engines.portable.memory import Box, finite
from xpconv.engines.portable.pieces import covered, taps
from xpconv.engines.portable.scatter import Scatter, sharing
from xpconv.kinds import dtype_kind
from xpconv.window import Window


class _Winners(NamedTuple):
    """Residuals for ties='first': the cell each output came from, counted from the end of its window, from 1."""

    ranks: Array  # (N, *out, C), of the smallest integers that do
    window: Window


class _Maxima(NamedTuple):
    """Residuals for ties='all': every cell of x that equals its y has won."""

    x: Array
    y: Array
    window: Window


def max_pool(x: Array, *, needs: Needs, window: Window, ties: str, return_indices: bool) -> tuple[Any, Any]:
    """y = the largest real cell of each window, nan if one is: (N, *size, C) -> (N, *out, C)."""
    xp = namespace(x)
    y = outputs(x, window)
    first = return_indices or (any(needs) and ties == "first")
    ranks = outputs(x, window, xp.uint8 if math.prod(window.kernel) <= 255 else xp.int32) if first else None
    for box in pool_boxes(x, window):
        # The fill loses to every cell but its equal, and then the value is right all the same.
        best = fold(covered(x, window, box, _lowest(x)), window, box, largest)
        y[(*box, slice(None))] = best
        if ranks is not None:
            ranks[(*box, slice(None))] = _ranks(x, best, ranks.dtype, window, box)
    residuals = None
    if any(needs):
        residuals = _Winners(ranks, window) if ties == "first" else _Maxima(x, y, window)
    return (y, _indices(ranks, window)) if return_indices else y, residuals


def max_pool_grad(residuals: _Winners | _Maxima, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy at the cells that won: (N, *out, C) -> (N, *size, C)."""
    window = residuals.window
    # Where no cell has two windows there is nothing to add to: a quarter of the time.
    disjoint = all(windows == 1 for windows in sharing(window))
    dx = Scatter(dy, window, dy.shape[-1], list(pool_boxes(dy, window)))
    for box in dx.boxes():
        part = dy[(*box, slice(None))]
        tame = finite(part)
        for into, of, won in _wins(residuals, box):
            share = where_won(won, part[of], tame)
            if disjoint:
                dx.total[into] = share
            else:
                dx.add(into, share)
                dx.given()
    return (dx.total,)


def _wins(residuals: _Winners | _Maxima, box: Box) -> Iterator[tuple[Box, Box, Array]]:
    """For each cell of the kernel: where it lands, from which windows of the box, and whether it won there."""
    window = residuals.window
    if isinstance(residuals, _Winners):
        ranks, count = residuals.ranks[(*box, slice(None))], math.prod(window.kernel)
        for t, into, of in real(window, box):
            yield into, of, ranks[of] == count - t
    else:
        best = residuals.y[(*box, slice(None))]
        yield from ((into, of, won) for _, into, of, won in _maxima(residuals.x, best, window, box))


def _ranks(x: Array, best: Array, dtype: Any, window: Window, box: Box) -> Array:
    """The first cell, in row-major order, that is its window's maximum or its nan, as `_Winners` keeps it."""
    xp = namespace(x)
    count = math.prod(window.kernel)
    ranks = xp.zeros(best.shape, dtype=dtype, device=x.device)
    for t, _, of, won in _maxima(x, best, window, box):
        ranks[of] = xp.maximum(ranks[of], cast(won, dtype) * (count - t))
    return ranks


def _maxima(x: Array, best: Array, window: Window, box: Box) -> Iterator[tuple[int, Box, Box, Array]]:
    """For each cell of the kernel, whether it is the maximum of its window; where that is nan, whether it is nan."""
    tame = finite(best)
    for t, into, of in real(window, box):
        cells = x[into]
        won = cells == best[of]
        yield t, into, of, (won if tame else won | (cells != cells))


def _lowest(x: Array) -> Any:
    return namespace(x).iinfo(x.dtype).min if dtype_kind(x.dtype) == "i" else -math.inf


def _indices(ranks: Array, window: Window) -> Array:
    """Flat places in the plane ``window.size`` of the cells that `_Winners` keeps: (N, *out, C) -> int64."""
    xp = namespace(ranks)
    device = ranks.device
    steps = [math.prod(window.size[axis + 1 :]) for axis in range(window.rank)]
    offsets = [sum(t * step for t, step in zip(tap, steps, strict=True)) for tap in taps(window)]
    table = xp.asarray([0, *reversed(offsets)], dtype=xp.int64, device=device)
    flat = cast(xp.reshape(ranks, (-1,)), xp.int64)
    places = xp.reshape(xp.take(table, flat, axis=0), ranks.shape)
    for axis, (m, s, (lo, _), step) in enumerate(zip(window.out, window.stride, window.padding, steps, strict=True)):
        starts = xp.arange(-lo * step, (m * s - lo) * step, s * step, dtype=xp.int64, device=device)
        places += xp.reshape(starts, (m, *(1,) * (window.rank - axis)))
    return places


PRIMITIVES = {"max_pool": Primitive(max_pool, max_pool_grad)}
