"""Resizing: each output reads a few cells, and in the gradient each cell gathers from the outputs that read it."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import launch, width_of

Sizes = tuple[int, ...]

# As `enum Mode` in the kernels' source counts them; corners are aligned in a mode of its own there.
_MODES = {("nearest", False): 0, ("nearest-exact", False): 1, ("bilinear", False): 2, ("bilinear", True): 3}
_STRUCT = np.dtype(
    [("images", "i8"), ("channels", "i8"), *((name, "i4", 3) for name in ("size", "out")), ("mode", "i4")], align=True
)


def resize(x: Array, *, needs: Needs, output_size: Sizes, mode: str, align_corners: bool) -> tuple[Array, Any]:
    """y = x sampled on another grid: (N, *size, C) -> (N, *output_size, C)."""
    x, sizes, which = dense(x), tuple(x.shape[1:-1]), _MODES[mode, align_corners]
    y = cupy.empty((x.shape[0], *output_size, x.shape[-1]), dtype=x.dtype)
    width, largest = width_of(x.shape[-1], x, y), max(x.size, y.size)
    args = (x, y, _struct(x, sizes, output_size, which))
    launch("resize", "sample", x, y.size // width, *args, largest=largest, width=width)
    return y, (sizes, output_size, which) if any(needs) else None


def resize_grad(residuals: tuple[Sizes, Sizes, int], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy, weighted, at the cells that were sampled: (N, *output_size, C) -> (N, *size, C)."""
    sizes, output_size, which = residuals
    dy = dense(dy)
    dx = cupy.empty((dy.shape[0], *sizes, dy.shape[-1]), dtype=dy.dtype)
    width, largest = width_of(dy.shape[-1], dy, dx), max(dx.size, dy.size)
    args = (dy, dx, _struct(dy, sizes, output_size, which))
    launch("resize", "sample_back", dy, dx.size // width, *args, largest=largest, width=width)
    return (dx,)


def _struct(x: Array, sizes: Sizes, outs: Sizes, which: int) -> np.ndarray[Any, Any]:
    """What kernels are told, axes that are not there filled up with one cell."""
    made = np.ones(1, dtype=_STRUCT)
    made["images"], made["channels"], made["mode"] = x.shape[0], x.shape[-1], which
    made["size"][0, 3 - len(sizes) :], made["out"][0, 3 - len(sizes) :] = sizes, outs
    return made


PRIMITIVES = {"resize": Primitive(resize, resize_grad, unsupported)}
