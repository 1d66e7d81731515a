"""Pooling as it is defined: for every image, every window and every channel, look at the window's real cells.

Step by step as in the exercise that the project grew from, for any rank, padding and dilation. Padding is left out of
the slices rather than filled with something, and so can neither win a maximum nor receive a gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.window import Window

Index = tuple[Any, ...]


def max_pool(x: Array, *, needs: Needs, window: Window, ties: str, return_indices: bool) -> tuple[Any, Any]:
    """y[n, i, c] = the maximum of the window, nan if it holds one; its index is the first of the equal ones."""
    xp = namespace(x)
    plane = cell_numbers(x, window)
    y = xp.zeros((x.shape[0], *window.out, x.shape[-1]), dtype=x.dtype, device=x.device)
    indices = xp.zeros(y.shape, dtype=xp.int64, device=x.device)
    for n, i, cells, c in windows(x, window):
        a_slice = x[(n, *cells, c)]
        y[(n, *i, c)] = xp.max(a_slice)
        candidates = xp.where(mask_of_maxima(a_slice), plane[cells], math.prod(window.size))
        indices[(n, *i, c)] = xp.min(candidates)
    return (y, indices) if return_indices else y, (x, indices, window, ties) if any(needs) else None


def max_pool_grad(residuals: tuple[Array, Array, Window, str], dy: Array, needs: Needs) -> tuple[Array]:
    """dy[n, i, c] goes to the maximum of its window: to the first of equal ones, or to each of them."""
    xp = namespace(dy)
    x, indices, window, ties = residuals
    plane = cell_numbers(x, window)
    dx = xp.zeros(x.shape, dtype=dy.dtype, device=dy.device)
    for n, i, cells, c in windows(x, window):
        first = plane[cells] == indices[(n, *i, c)]
        mask = first if ties == "first" else mask_of_maxima(x[(n, *cells, c)])
        dx[(n, *cells, c)] += xp.where(mask, dy[(n, *i, c)], 0.0)
    return (dx,)


def avg_pool(
    x: Array, *, needs: Needs, window: Window, count_include_pad: bool, divisor: float | None
) -> tuple[Array, Any]:
    """y[n, i, c] = the sum of the window by the divisor, or by the number of cells that count."""
    xp = namespace(x)
    y = xp.zeros((x.shape[0], *window.out, x.shape[-1]), dtype=x.dtype, device=x.device)
    for n, i, cells, c in windows(x, window):
        y[(n, *i, c)] = xp.sum(x[(n, *cells, c)]) / (divisor or cells_that_count(i, window, count_include_pad))
    return y, (window, count_include_pad, divisor) if any(needs) else None


def avg_pool_grad(residuals: tuple[Window, bool, float | None], dy: Array, needs: Needs) -> tuple[Array]:
    """dy[n, i, c] is distributed evenly over its window."""
    window, count_include_pad, divisor = residuals
    dx = namespace(dy).zeros((dy.shape[0], *window.size, dy.shape[-1]), dtype=dy.dtype, device=dy.device)
    for n, i, cells, c in windows(dx, window):
        dx[(n, *cells, c)] += dy[(n, *i, c)] / (divisor or cells_that_count(i, window, count_include_pad))
    return (dx,)


def lp_pool(x: Array, *, needs: Needs, window: Window, p: float) -> tuple[Array, Any]:
    """y[n, i, c] = (sum of |x|^p over the window)^(1/p), the largest cell drawn out so that no power overflows."""
    xp = namespace(x)
    y = xp.zeros((x.shape[0], *window.out, x.shape[-1]), dtype=x.dtype, device=x.device)
    for n, i, cells, c in windows(x, window):
        a_slice = xp.abs(x[(n, *cells, c)])
        peak = float(xp.max(a_slice))
        if 0 < peak < math.inf:
            y[(n, *i, c)] = peak * xp.sum((a_slice / peak) ** p) ** (1 / p)
        else:
            y[(n, *i, c)] = peak
    return y, (x, y, window, p) if any(needs) else None


def lp_pool_grad(residuals: tuple[Array, Array, Window, float], dy: Array, needs: Needs) -> tuple[Array]:
    """dy[n, i, c] goes to each x of its window times sign(x) (|x| / y)^(p - 1); nothing goes to a zero."""
    xp = namespace(dy)
    x, y, window, p = residuals
    dx = xp.zeros(x.shape, dtype=dy.dtype, device=dy.device)
    for n, i, cells, c in windows(x, window):
        if y[(n, *i, c)] != 0:
            ratio = x[(n, *cells, c)] / y[(n, *i, c)]
            power = xp.where(ratio == 0, 1.0, xp.abs(ratio)) ** (p - 1)
            dx[(n, *cells, c)] += dy[(n, *i, c)] * xp.sign(ratio) * power
    return (dx,)


def windows(x: Array, window: Window) -> Iterator[tuple[int, Index, Index, int]]:
    """Image n, place i of the window, the slices of its real cells in the unpadded input, and channel c."""
    for n, *i in itertools.product(range(x.shape[0]), *(range(m) for m in window.out)):
        cells = []
        for at, size, s, d, k, (lo, _) in zip(
            i, window.size, window.stride, window.dilation, window.kernel, window.padding, strict=True
        ):
            start = at * s - lo
            first = start if start >= 0 else start % d
            cells.append(slice(first, min(start + d * (k - 1) + 1, size), d))
        for c in range(x.shape[-1]):
            yield n, tuple(i), tuple(cells), c


def cell_numbers(x: Array, window: Window) -> Array:
    """The cells of one channel plane, numbered in row-major order."""
    xp = namespace(x)
    return xp.reshape(xp.arange(math.prod(window.size), dtype=xp.int64, device=x.device), window.size)


def mask_of_maxima(a_slice: Array) -> Array:
    """Where a window has its maximum; if that is nan, where it is nan."""
    return (a_slice == namespace(a_slice).max(a_slice)) | (a_slice != a_slice)


def cells_that_count(i: Index, window: Window, count_include_pad: bool) -> int:
    """How many cells of window i lie in the input, or in its padding if that counts; ceil mode may reach beyond."""
    count = 1
    for at, size, s, d, k, (lo, hi) in zip(
        i, window.size, window.stride, window.dilation, window.kernel, window.padding, strict=True
    ):
        first, end = (-lo, size + hi) if count_include_pad else (0, size)
        count *= sum(first <= at * s - lo + j * d < end for j in range(k))
    return count


def _describe(x: Array, *, window: Window, **_: Any) -> str:
    return f"{x.shape[0] * math.prod(window.out) * x.shape[-1]} windows, one at a time"


PRIMITIVES = {
    "max_pool": Primitive(max_pool, max_pool_grad, describe=_describe),
    "avg_pool": Primitive(avg_pool, avg_pool_grad, describe=_describe),
    "lp_pool": Primitive(lp_pool, lp_pool_grad, describe=_describe),
}
