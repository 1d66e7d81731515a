"""The rectifier whose slopes are learnt: x and its gradient in a pass each, the slopes' in sums of columns."""

from __future__ import annotations

from typing import Any

import cupy

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.sums import Slabs


def _prelu(x: Array, slope: Array, *, needs: Needs) -> tuple[Array, Any]:
    """y = x where x > 0, else slope · x: (..., C), (C,) or a single slope -> (..., C)."""
    x, slope = dense(x), dense(slope)
    y = cupy.empty(x.shape, dtype=x.dtype)
    width = width_of(x.size, x, y)
    launch("prelu", "forward", x, x.size // width, x, slope, y, *integers(x.size, slope.size), width=width)
    return y, (x, slope) if any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx as of leaky_relu; the slope's is the sum of min(x, 0) · dy over the rows, (rows, slopes)."""
    x, slope = residuals
    dy = dense(dy)
    slabs = Slabs.of(x.size // slope.size, slope.size)
    dx = cupy.empty(x.shape, dtype=x.dtype) if needs[0] else None
    parts = cupy.empty((slabs.slabs, slabs.columns), dtype=computed_in(x.dtype)) if needs[1] else None
    slabs.launch("prelu", "back", x, x, slope, dy, dx, parts, *integers(slabs.rows, slabs.columns, slabs.size))
    if parts is None:
        return dx, None
    dslope = cupy.empty(slope.shape, dtype=slope.dtype)
    slabs.settle(x, parts, dslope)
    return dx, dslope


PRIMITIVES = {"prelu": Primitive(_prelu, _backward, unsupported)}
