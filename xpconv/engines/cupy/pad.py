"""Padding of the spatial axes: each cell looks up the one it copies, and in the gradient all its copies."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.divider import DIVIDER, divider, dividers

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

_MODES = {"constant": 0, "edge": 1, "wrap": 2, "reflect": 3}  # as `enum Mode` in the kernels' source counts them
_STRUCT = np.dtype(
    [*((name, "i4", 3) for name in ("size", "out", "before")), ("mode", "i4"), ("packs", DIVIDER)]
    + [(name, DIVIDER, 3) for name in ("sizes", "outs")],
    align=True,
)


def pad(x: Array, *, needs: Needs, padding: Pairs, mode: str, value: Any) -> tuple[Array, Any]:
    """y = x with borders: (N, *spatial, C) -> (N, *(n + before + after), C)."""
    x, sizes = dense(x), tuple(x.shape[1:-1])
    outs = tuple(n + lo + hi for n, (lo, hi) in zip(sizes, padding, strict=True))
    y = cupy.empty((x.shape[0], *outs, x.shape[-1]), dtype=x.dtype)
    width = width_of(x.shape[-1], x, y)
    borders, items = _struct(sizes, outs, padding, mode, x.shape[-1] // width), y.size // width
    launch("pad", "pad", x, items, x, y, *integers(items), np.float64(value), borders, largest=y.size, width=width)
    return y, (sizes, padding, mode) if any(needs) else None


def pad_grad(residuals: tuple[Sizes, Pairs, str], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = the sum of dy over the cell and all its copies: (N, *(n + before + after), C) -> (N, *spatial, C)."""
    sizes, padding, mode = residuals
    dy = dense(dy)
    dx = cupy.empty((dy.shape[0], *sizes, dy.shape[-1]), dtype=dy.dtype)
    width = width_of(dy.shape[-1], dy, dx)
    borders = _struct(sizes, tuple(dy.shape[1:-1]), padding, mode, dy.shape[-1] // width)
    items = dx.size // width
    launch("pad", "pad_back", dy, items, dy, dx, *integers(items), borders, largest=dy.size, width=width)
    return (dx,)


@functools.lru_cache(maxsize=1024)
def _struct(sizes: Sizes, outs: Sizes, padding: Pairs, mode: str, packs: int) -> np.ndarray[Any, Any]:
    """What kernels are told, axes that are not there filled up with one cell."""
    made = np.ones(1, dtype=_STRUCT)
    made["mode"], made["before"] = _MODES[mode], 0
    first = 3 - len(sizes)
    made["size"][0, first:], made["out"][0, first:] = sizes, outs
    made["before"][0, first:] = [before for before, _ in padding]
    made["packs"], made["sizes"], made["outs"] = divider(packs), dividers(sizes), dividers(outs)
    return made


PRIMITIVES = {"pad": Primitive(pad, pad_grad, unsupported)}
