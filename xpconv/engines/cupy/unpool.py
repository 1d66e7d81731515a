"""Max unpooling: the last cell of each place is found by the largest number, then every place looks up its own."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.divider import DIVIDER, divider

Sizes = tuple[int, ...]
_PLANES = np.dtype(
    [
        *((name, "i8") for name in ("cells", "targets", "channels")),
        *((name, DIVIDER) for name in ("packs", "by_cells", "by_targets")),
    ],
    align=True,
)


def _planes(size: Sizes, output_size: Sizes, channels: int, width: int) -> np.ndarray[Any, Any]:
    """(N, *size, C) and (N, *output_size, C) as kernels take them."""
    cells, targets = math.prod(size), math.prod(output_size)
    made = np.zeros(1, dtype=_PLANES)
    made["cells"], made["targets"], made["channels"] = cells, targets, channels
    made["packs"], made["by_cells"], made["by_targets"] = divider(channels // width), divider(cells), divider(targets)
    return made


def _last(places: Array, like: Array, output_size: Sizes) -> Array:
    """1 + the number of the last cell with each place: (N, *output_size, C)."""
    images, *size, channels = places.shape
    last = cupy.zeros((images, *output_size, channels), dtype=np.int32)
    width = width_of(channels, like, places, last)
    args = places, last, *integers(places.size // width), _planes(tuple(size), output_size, channels, width)
    largest = max(places.size, last.size)
    launch("unpool", "find_last", like, places.size // width, *args, largest=largest, width=width)
    return last


def max_unpool(x: Array, indices: Array, *, needs: Needs, output_size: Sizes) -> tuple[Array, Any]:
    """y[n, indices[n, i, c], c] = x[n, i, c], else 0: (N, *size, C) -> (N, *output_size, C)."""
    x, places = dense(x), dense(cast(indices, np.dtype(np.int64)))
    last = _last(places, x, output_size)
    y = cupy.empty(last.shape, dtype=x.dtype)
    width = width_of(x.shape[-1], x, last, y)
    args = x, last, y, *integers(y.size // width), _planes(x.shape[1:-1], output_size, x.shape[-1], width)
    launch("unpool", "spread", x, y.size // width, *args, largest=max(x.size, y.size), width=width)
    return y, (places, output_size) if any(needs) else None


def max_unpool_grad(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, None]:
    """dx = dy at the place, 0 for a cell that a later one has overwritten: (N, *output_size, C) -> (N, *size, C)."""
    places, output_size = residuals
    dy = dense(dy)
    last = _last(places, dy, output_size)
    dx = cupy.empty(places.shape, dtype=dy.dtype)
    width = width_of(dy.shape[-1], dy, places, last, dx)
    args = (
        places,
        last,
        dy,
        dx,
        *integers(dx.size // width),
        _planes(places.shape[1:-1], output_size, dy.shape[-1], width),
    )
    launch("unpool", "collect", dy, dx.size // width, *args, largest=max(dx.size, dy.size), width=width)
    return dx, None


def _declines(x: Array, indices: Array, **_: Any) -> str | None:
    return unsupported(x)


PRIMITIVES = {"max_unpool": Primitive(max_unpool, max_unpool_grad, _declines)}
