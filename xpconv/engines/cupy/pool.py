"""Average and Lp pooling, and adaptive average pooling where its windows are all alike."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.sums import SLAB_WIDTH
from xpconv.engines.cupy.windows import alike, struct, uneven
from xpconv.window import Window


class _Average(NamedTuple):
    """What an average needs to know of its windows; 0 for the divisor: the number of cells that count."""

    window: Window
    divisor: float
    with_padding: bool

    def launch(self, name: str, x: Array, made: Array) -> None:
        images, channels = x.shape[0], x.shape[-1]
        width = width_of(channels, x, made)
        items, w = made.size // width, struct(self.window, images, channels, channels // width)
        args = (x, made, *integers(items), np.float64(self.divisor), self.with_padding, w)
        launch("pool", name, x, items, *args, largest=max(x.size, made.size), width=width)


def avg_pool(
    x: Array, *, needs: Needs, window: Window, count_include_pad: bool, divisor: float | None
) -> tuple[Array, Any]:
    """y = the sum of each window by the divisor, or by its number of cells: (N, *size, C) -> (N, *out, C)."""
    x, average = dense(x), _Average(window, divisor or 0.0, count_include_pad)
    y = cupy.empty((x.shape[0], *window.out, x.shape[-1]), dtype=x.dtype)
    average.launch("average", x, y)
    return y, average if any(needs) else None


def avg_pool_grad(average: _Average, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy by the divisor, at every cell of its window: (N, *out, C) -> (N, *size, C)."""
    dy = dense(dy)
    dx = cupy.empty((dy.shape[0], *average.window.size, dy.shape[-1]), dtype=dy.dtype)
    average.launch("average_back", dy, dx)
    return (dx,)


def _adaptive(x: Array, *, needs: Needs, output_size: tuple[int, ...]) -> tuple[Array, Any]:
    return avg_pool(x, needs=needs, window=alike(x, output_size), count_include_pad=True, divisor=None)


def lp_pool(x: Array, *, needs: Needs, window: Window, p: float) -> tuple[Array, Any]:
    """y = (Σ |x|^p)^(1/p): (N, *size, C) -> (N, *out, C)."""
    x = dense(x)
    y = cupy.empty((x.shape[0], *window.out, x.shape[-1]), dtype=x.dtype)
    kept = cupy.empty(y.shape, dtype=computed_in(x.dtype)) if is_half(x) and any(needs) else None
    width = width_of(x.shape[-1], x, y, kept, most=SLAB_WIDTH)
    items, w = y.size // width, struct(window, x.shape[0], x.shape[-1], x.shape[-1] // width)
    args = x, y, kept, *integers(items), np.float64(p), w
    launch("pool", "lp_norm", x, items, *args, largest=max(x.size, y.size), width=width)
    return y, (x, y if kept is None else kept, window, p) if any(needs) else None


def lp_pool_grad(residuals: Any, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy sign(x) (|x| / y)^(p - 1), and 0 where x or y is: (N, *out, C) -> (N, *size, C)."""
    x, kept, window, p = residuals
    dy, dx = dense(dy), cupy.empty(x.shape, dtype=dy.dtype)
    width = width_of(x.shape[-1], dy, x, kept, dx, most=SLAB_WIDTH)
    items, w = dx.size // width, struct(window, x.shape[0], x.shape[-1], x.shape[-1] // width)
    args = x, kept, dy, dx, *integers(items), np.float64(p), w
    launch("pool", "lp_norm_back", dy, items, *args, largest=max(dx.size, dy.size), width=width)
    return (dx,)


PRIMITIVES = {
    "avg_pool": Primitive(avg_pool, avg_pool_grad, unsupported),
    "lp_pool": Primitive(lp_pool, lp_pool_grad, unsupported),
    "adaptive_avg_pool": Primitive(_adaptive, avg_pool_grad, uneven),
}
