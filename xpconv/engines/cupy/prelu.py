"""The rectifier whose slopes are learnt: x and its gradient in a pass each, the slopes' in sums of columns."""

from __future__ import annotations

from typing import Any

import cupy

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.divider import divider
from xpconv.engines.cupy.sums import SLAB_WIDTH, Slabs, settle


def _prelu(x: Array, slope: Array, *, needs: Needs) -> tuple[Array, Any]:
    """y = x where x > 0, else slope · x: (..., C), (C,) or a single slope -> (..., C)."""
    x, slope = dense(x), dense(slope)
    y = cupy.empty(x.shape, dtype=x.dtype)
    one = slope.size == 1
    width = width_of(x.size if one else slope.size, x, y, *([] if one else [slope]))
    items = x.size // width
    args = (x, slope, y, *integers(items), one, divider(slope.size // width))
    launch("prelu", "forward", x, items, *args, width=width)
    return y, (x, slope) if any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx as of leaky_relu; the slope's is the sum of min(x, 0) · dy over the rows, (rows, slopes)."""
    x, slope = residuals
    dy, one = dense(dy), slope.size == 1
    dx = cupy.empty(x.shape, dtype=x.dtype) if needs[0] else None
    width = width_of(x.size if one else slope.size, x, dy, dx, *([] if one else [slope]), most=SLAB_WIDTH)
    columns = width if one else slope.size
    slabs = Slabs.of(x.size // columns, columns, width)
    parts = cupy.empty((slabs.slabs, columns), dtype=computed_in(x.dtype)) if needs[1] else None
    slabs.launch("prelu", "back", x, x, slope, dy, dx, parts, *integers(slabs.rows, columns, slabs.size), one)
    if parts is None:
        return dx, None
    dslope = cupy.empty(slope.shape, dtype=slope.dtype)
    settle(parts, dslope)
    return dx, dslope


PRIMITIVES = {"prelu": Primitive(_prelu, _backward, unsupported)}
