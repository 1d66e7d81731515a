"""Max pooling, and adaptive max pooling where its windows are all alike."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.windows import alike, struct, taps, uneven
from xpconv.window import Window


class _Winners(NamedTuple):
    """Residuals for ties='first': the number of the kernel cell that won each window."""

    ranks: Array  # (N, *out, C), bytes where all numbers fit into one
    window: Window


class _Maxima(NamedTuple):
    """Residuals for ties='all': every cell of x that equals its y has won."""

    x: Array
    y: Array
    window: Window


def max_pool(x: Array, *, needs: Needs, window: Window, ties: str, return_indices: bool) -> tuple[Any, Any]:
    """y = the largest real cell of each window, nan if one is: (N, *size, C) -> (N, *out, C)."""
    x = dense(x)
    shape = (x.shape[0], *window.out, x.shape[-1])
    y = cupy.empty(shape, dtype=x.dtype)
    by, rank = ("byte", np.uint8) if taps(window) <= 256 else ("int", np.int32)
    ranks = cupy.empty(shape, dtype=rank) if any(needs) and ties == "first" else None
    places = cupy.empty(shape, dtype=np.int64) if return_indices else None
    width = width_of(x.shape[-1], x, y)
    items, w = y.size // width, struct(window, x.shape[0], x.shape[-1], x.shape[-1] // width)
    args, largest = (x, y, ranks, places, *integers(items), w), max(x.size, y.size)
    launch("maxpool", f"largest_by_{by}", x, items, *args, largest=largest, width=width)
    residuals: Any = None
    if any(needs):
        residuals = _Maxima(x, y, window) if ranks is None else _Winners(ranks, window)
    return y if places is None else (y, places), residuals


def max_pool_grad(residuals: _Winners | _Maxima, dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy at the cells that won: (N, *out, C) -> (N, *size, C)."""
    dy, window = dense(dy), residuals.window
    images, channels = dy.shape[0], dy.shape[-1]
    dx = cupy.empty((images, *window.size, channels), dtype=dy.dtype)
    width = width_of(channels, dy, dx, *(residuals[:2] if isinstance(residuals, _Maxima) else ()))
    items, w = dx.size // width, struct(window, images, channels, channels // width)
    args, largest = (dy, dx, *integers(items), w), max(dx.size, dy.size)
    if isinstance(residuals, _Maxima):
        launch("maxpool", "back_to_all", dy, items, residuals.x, residuals.y, *args, largest=largest, width=width)
    else:
        by = "byte" if residuals.ranks.dtype == np.uint8 else "int"
        launch("maxpool", f"back_by_{by}", dy, items, residuals.ranks, *args, largest=largest, width=width)
    return (dx,)


def _adaptive(x: Array, *, needs: Needs, output_size: tuple[int, ...]) -> tuple[Any, Any]:
    return max_pool(x, needs=needs, window=alike(x, output_size), ties="first", return_indices=False)


PRIMITIVES = {
    "max_pool": Primitive(max_pool, max_pool_grad, unsupported),
    "adaptive_max_pool": Primitive(_adaptive, max_pool_grad, uneven),
}
