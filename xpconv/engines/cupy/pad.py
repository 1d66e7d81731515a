"""Padding of the spatial axes: each cell looks up the one it copies, and in the gradient all its copies."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import launch, width_of

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

_MODES = {"constant": 0, "edge": 1, "wrap": 2, "reflect": 3}  # as `enum Mode` in the kernels' source counts them
_STRUCT = np.dtype(
    [("images", "i8"), ("channels", "i8"), *((name, "i4", 3) for name in ("size", "out", "before")), ("mode", "i4")],
    align=True,
)


def pad(x: Array, *, needs: Needs, padding: Pairs, mode: str, value: Any) -> tuple[Array, Any]:
    """y = x with borders: (N, *spatial, C) -> (N, *(n + before + after), C)."""
    x, sizes = dense(x), tuple(x.shape[1:-1])
    outs = tuple(n + lo + hi for n, (lo, hi) in zip(sizes, padding, strict=True))
    y = cupy.empty((x.shape[0], *outs, x.shape[-1]), dtype=x.dtype)
    width, borders = width_of(x.shape[-1], x, y), _struct(x, sizes, outs, padding, mode)
    launch("pad", "pad", x, y.size // width, x, y, np.float64(value), borders, largest=y.size, width=width)
    return y, (sizes, padding, mode) if any(needs) else None


def pad_grad(residuals: tuple[Sizes, Pairs, str], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = the sum of dy over the cell and all its copies: (N, *(n + before + after), C) -> (N, *spatial, C)."""
    sizes, padding, mode = residuals
    dy = dense(dy)
    dx = cupy.empty((dy.shape[0], *sizes, dy.shape[-1]), dtype=dy.dtype)
    width, borders = width_of(dy.shape[-1], dy, dx), _struct(dy, sizes, tuple(dy.shape[1:-1]), padding, mode)
    launch("pad", "pad_back", dy, dx.size // width, dy, dx, borders, largest=dy.size, width=width)
    return (dx,)


def _struct(x: Array, sizes: Sizes, outs: Sizes, padding: Pairs, mode: str) -> np.ndarray[Any, Any]:
    """What kernels are told, axes that are not there filled up with one cell."""
    made = np.ones(1, dtype=_STRUCT)
    made["images"], made["channels"], made["mode"], made["before"] = x.shape[0], x.shape[-1], _MODES[mode], 0
    first = 3 - len(sizes)
    made["size"][0, first:], made["out"][0, first:] = sizes, outs
    made["before"][0, first:] = [before for before, _ in padding]
    return made


PRIMITIVES = {"pad": Primitive(pad, pad_grad, unsupported)}
