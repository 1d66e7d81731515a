"""Max unpooling: the last cell of each place is found by the largest number, then every place looks up its own."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch

Sizes = tuple[int, ...]


def _last(places: Array, like: Array, output_size: Sizes) -> tuple[Array, tuple[Any, ...]]:
    """1 + the number of the last cell with each place, (N, *output_size, C), and the sizes that kernels take."""
    images, *size, channels = places.shape
    last = cupy.zeros((images, *output_size, channels), dtype=np.int32)
    sizes = integers(math.prod(size), math.prod(output_size), channels)
    args, largest = (places, last, *integers(places.size), *sizes), max(places.size, last.size)
    launch("unpool", "find_last", like, places.size, *args, largest=largest)
    return last, sizes


def max_unpool(x: Array, indices: Array, *, needs: Needs, output_size: Sizes) -> tuple[Array, Any]:
    """y[n, indices[n, i, c], c] = x[n, i, c], else 0: (N, *size, C) -> (N, *output_size, C)."""
    x, places = dense(x), dense(cast(indices, np.dtype(np.int64)))
    last, sizes = _last(places, x, output_size)
    y = cupy.empty(last.shape, dtype=x.dtype)
    launch("unpool", "spread", x, y.size, x, last, y, *integers(y.size), *sizes)
    return y, (places, output_size) if any(needs) else None


def max_unpool_grad(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, None]:
    """dx = dy at the place, 0 for a cell that a later one has overwritten: (N, *output_size, C) -> (N, *size, C)."""
    places, output_size = residuals
    dy = dense(dy)
    last, sizes = _last(places, dy, output_size)
    dx = cupy.empty(places.shape, dtype=dy.dtype)
    args = (places, last, dy, dx, *integers(dx.size), *sizes)
    launch("unpool", "collect", dy, dx.size, *args, largest=max(dx.size, dy.size))
    return dx, None


def _declines(x: Array, indices: Array, **_: Any) -> str | None:
    return unsupported(x)


PRIMITIVES = {"max_unpool": Primitive(max_unpool, max_unpool_grad, _declines)}
