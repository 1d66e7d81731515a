"""Average and Lp pooling, in boxes of windows small enough for the cache."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.folds import fold, largest, outputs, pool_boxes, real, spread, total
from xpconv.engines.portable.memory import Box
from xpconv.engines.portable.pieces import covered
from xpconv.engines.portable.scatter import Scatter, meeting, real_cells
from xpconv.engines.portable.sums import RUN, RunningSum, blocks
from xpconv.window import Window


def avg_pool(
    x: Array, *, needs: Needs, window: Window, count_include_pad: bool, divisor: float | None
) -> tuple[Array, Any]:
    """y = the sum of each window by the divisor, or by its number of cells: (N, *size, C) -> (N, *out, C)."""
    y = outputs(x, window)
    by = _divisors(x, window, count_include_pad) if divisor is None else divisor
    for box in pool_boxes(x, window):
        y[(*box, slice(None))] = fold(covered(x, window, box), window, box, total) / _at(by, box)
    return y, (window, by) if any(needs) else None


def avg_pool_grad(residuals: tuple[Window, Any], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy by the divisor, at every cell of its window: (N, *out, C) -> (N, *size, C)."""
    window, by = residuals
    places = list(pool_boxes(dy, window))
    dx = RunningSum(dy, (dy.shape[0], *window.size, dy.shape[-1]), meeting(window, places))
    for box in places:
        shares = spread(dy[(*box, slice(None))] / _at(by, box), window, box)
        into, of = real_cells(window, box)
        dx.add(into, shares[of])
    return (dx.total,)


def _divisors(x: Array, window: Window, count_include_pad: bool) -> float | Array:
    """Cells that count in each window: one number where all are alike, else (1, *out, 1)."""
    xp = namespace(x)
    counts = _counts(window, count_include_pad)
    if all(set(along) == {k} for along, k in zip(counts, window.kernel, strict=True)):
        return float(math.prod(window.kernel))
    by = xp.ones((1,) * x.ndim, dtype=x.dtype, device=x.device)
    for axis, along in enumerate(counts):
        by = by * xp.reshape(xp.asarray(along, dtype=x.dtype, device=x.device), (-1, *(1,) * (window.rank - axis)))
    return by


@lru_cache(maxsize=512)
def _counts(window: Window, count_include_pad: bool) -> tuple[tuple[int, ...], ...]:
    """Along each axis, how many cells of each window count: the cells i s + j d, j < k, from first to before end."""
    counts = []
    for n, m, s, d, k, (lo, hi) in zip(
        window.size, window.out, window.stride, window.dilation, window.kernel, window.padding, strict=True
    ):
        first, end = (0, n + lo + hi) if count_include_pad else (lo, n + lo)
        lows = (max(0, -((i * s - first) // d)) for i in range(m))
        highs = (min(k - 1, (end - 1 - i * s) // d) for i in range(m))
        counts.append(tuple(high - low + 1 for low, high in zip(lows, highs, strict=True)))
    return tuple(counts)


def _at(by: Any, box: Box) -> Any:
    return by if isinstance(by, (int, float)) else by[(slice(None), *box[1:], slice(None))]


# -- Lp --------------------------------------------------------------------------------------------------------------


def lp_pool(x: Array, *, needs: Needs, window: Window, p: float) -> tuple[Array, Any]:
    """y = (sum of |x|^p over each window)^(1/p): (N, *size, C) -> (N, *out, C)."""
    xp = namespace(x)
    y = outputs(x, window)
    for box in pool_boxes(x, window):
        # Every term is taken relative to the window's largest, so that no power overflows or vanishes.
        peak = fold(xp.abs(covered(x, window, box)), window, box, largest)
        scale = xp.where((peak > 0) & (peak < math.inf), peak, xp.ones_like(peak))
        cells = real(window, box)
        sums = xp.zeros_like(scale)
        for run in blocks(len(cells), RUN):
            block = xp.zeros_like(scale)
            for _, into, of in cells[run]:
                block[of] += _power(xp.abs(x[into]) / scale[of], p)
            sums += block
        y[(*box, slice(None))] = scale * (xp.sqrt(sums) if p == 2 else sums ** (1 / p))
    return y, (x, y, window, p) if any(needs) else None


def lp_pool_grad(residuals: tuple[Array, Array, Window, float], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy sign(x) (|x| / y)^(p - 1), and 0 where x or y is: (N, *out, C) -> (N, *size, C)."""
    xp = namespace(dy)
    x, y, window, p = residuals
    dx = Scatter(dy, window, dy.shape[-1], list(pool_boxes(dy, window)))
    for box in dx.boxes():
        part, best = dy[(*box, slice(None))], y[(*box, slice(None))]
        scale = xp.where(best == 0, xp.ones_like(best), best)
        for _, into, of in real(window, box):
            ratio = xp.sign(x[into]) if p == 1 else x[into] / scale[of]  # which may vanish where x does not
            if p not in (1, 2):
                ratio = xp.sign(ratio) * _power(_not_zero(xp.abs(ratio)) if p < 1 else xp.abs(ratio), p - 1)
            dx.add(into, part[of] * ratio)
            dx.given()
    return (dx.total,)


def _power(x: Array, p: float) -> Array:
    return x if p == 1 else x * x if p == 2 else x**p


def _not_zero(x: Array) -> Array:
    """1 in place of 0, whose negative powers are infinite; the sign makes it 0 again."""
    xp = namespace(x)
    return xp.where(x == 0, xp.ones_like(x), x)


PRIMITIVES = {
    "avg_pool": Primitive(avg_pool, avg_pool_grad),
    "lp_pool": Primitive(lp_pool, lp_pool_grad),
}
