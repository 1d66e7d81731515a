"""Dropout: mask and product in one pass; the mask is kept, since a counter on the device may have moved on."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of


def _run(x: Array, *, needs: Needs, rate: float, seed: int, counter: Any) -> tuple[Array, Any]:
    """y = x / (1 - rate) where the mask holds, else 0; any shape."""
    x = dense(x)
    y = cupy.empty(x.shape, dtype=x.dtype)
    mask = cupy.empty(x.shape, dtype=np.bool_) if any(needs) else None
    known = isinstance(counter, int)
    place = None if known else cast(cast(counter, np.dtype(np.int64)), np.dtype(np.uint64))
    words = np.uint64(seed), np.uint64(counter if known else 0), place
    numbers = np.uint32(math.floor(rate * 2**32)), np.float64(1.0 / (1.0 - rate))
    width = width_of(x.size, x, y)
    items, args = -(-x.size // max(width, 4)), (x, y, mask, *integers(x.size), *words, *numbers)
    launch("dropout", "drop", x, items, *args, largest=x.size, width=width)
    return y, (mask, rate)


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
    mask, rate = residuals
    dy = dense(dy)
    dx = cupy.empty(dy.shape, dtype=dy.dtype)
    width = width_of(dy.size, dy, dx)
    args = (mask, dy, dx, *integers(dy.size // width), np.float64(1.0 / (1.0 - rate)))
    launch("dropout", "drop_back", dy, dy.size // width, *args, width=width)
    return (dx,)


def _declines(x: Array, **_: Any) -> str | None:
    return unsupported(x)


PRIMITIVES = {"dropout": Primitive(_run, _backward, _declines)}
