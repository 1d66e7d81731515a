"""Resizing: each output reads a few cells, and in the gradient each cell gathers from the outputs that read it."""

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

# As `enum Mode` in the kernels' source counts them; corners are aligned in a mode of its own there.
_MODES = {("nearest", False): 0, ("nearest-exact", False): 1, ("bilinear", False): 2, ("bilinear", True): 3}
_STRUCT = np.dtype(
    [*((name, "i4", 3) for name in ("size", "out")), ("mode", "i4"), ("packs", DIVIDER)]
    + [(name, DIVIDER, 3) for name in ("sizes", "outs", "below", "apart")],
    align=True,
)


def resize(x: Array, *, needs: Needs, output_size: Sizes, mode: str, align_corners: bool) -> tuple[Array, Any]:
    """y = x sampled on another grid: (N, *size, C) -> (N, *output_size, C)."""
    x, sizes, which = dense(x), tuple(x.shape[1:-1]), _MODES[mode, align_corners]
    y = cupy.empty((x.shape[0], *output_size, x.shape[-1]), dtype=x.dtype)
    width = width_of(x.shape[-1], x, y)
    items, grid = y.size // width, _struct(sizes, tuple(output_size), which, x.shape[-1] // width)
    launch("resize", "sample", x, items, x, y, *integers(items), grid, largest=max(x.size, y.size), width=width)
    return y, (sizes, output_size, which) if any(needs) else None


def resize_grad(residuals: tuple[Sizes, Sizes, int], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy, weighted, at the cells that were sampled: (N, *output_size, C) -> (N, *size, C)."""
    sizes, output_size, which = residuals
    dy = dense(dy)
    dx = cupy.empty((dy.shape[0], *sizes, dy.shape[-1]), dtype=dy.dtype)
    width = width_of(dy.shape[-1], dy, dx)
    items, grid = dx.size // width, _struct(sizes, tuple(output_size), which, dy.shape[-1] // width)
    args, largest = (dy, dx, *integers(items), grid), max(dx.size, dy.size)
    launch("resize", "sample_back", dy, items, *args, largest=largest, width=width)
    return (dx,)


@functools.lru_cache(maxsize=1024)
def _struct(sizes: Sizes, outs: Sizes, which: int, packs: int) -> np.ndarray[Any, Any]:
    """What kernels are told, axes that are not there filled up with one cell."""
    made = np.ones(1, dtype=_STRUCT)
    made["mode"] = which
    made["size"][0, 3 - len(sizes) :], made["out"][0, 3 - len(sizes) :] = sizes, outs
    made["packs"], made["sizes"], made["outs"] = divider(packs), dividers(sizes), dividers(outs)
    made["below"] = dividers([(o, 2 * o, 2 * o, o - 1)[which] for o in made["out"][0].tolist()])
    made["apart"] = dividers([(n, 2 * n, 2 * n, n - 1)[which] for n in made["size"][0].tolist()])
    return made


PRIMITIVES = {"resize": Primitive(resize, resize_grad, unsupported)}
