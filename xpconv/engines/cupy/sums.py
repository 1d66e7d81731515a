"""Sums over all axes but the last, and the gradient of an activation on the way: two launches, no atomics."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.activations import FROM_OUTPUT
from xpconv.backend import Array
from xpconv.dispatch import Primitive
from xpconv.engines.cupy.activation import NUMBERS, gradient
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, kernel, pointers
from xpconv.errors import dtype_name

_THREADS = 256
_MOST_SLABS = 128  # that the second launch adds up, column by column
_LEAST_ROWS = 256  # of a slab


class Slabs(NamedTuple):
    """How rows are shared out among blocks, by the shape alone."""

    rows: int
    columns: int
    size: int  # rows in a slab
    slabs: int
    across: int  # columns of a block

    @classmethod
    def of(cls, rows: int, columns: int) -> Slabs:
        size = max(_LEAST_ROWS, -(-rows // _MOST_SLABS))
        across = min(32, 1 << max(columns - 1, 0).bit_length())
        return cls(rows, columns, size, max(-(-rows // size), 1), across)

    @property
    def block(self) -> tuple[int, int]:
        return self.across, _THREADS // self.across

    def grid(self, last: int = 1) -> tuple[int, int, int]:
        return max(-(-self.columns // self.across), 1), self.slabs, last

    def launch(self, module: str, name: str, like: Array, *args: Any, last: int = 1) -> None:
        """Launch a kernel of slabs; ``last`` is the third size of its grid."""
        largest = self.rows * self.columns * last
        kernel(module, name, dtype_name(like.dtype), largest)(self.grid(last), self.block, pointers(args))

    def settle(self, like: Array, parts: Array, result: Array, factor: float = 1.0) -> None:
        """result = factor times the sums that each slab has in ``parts``, (slabs, columns)."""
        compiled = kernel("sums", "settle", dtype_name(like.dtype), parts.size)
        compiled(self.grid()[:1], self.block, (parts, result, *integers(self.slabs, self.columns), np.float64(factor)))


def column_sums(x: Array, factor: float = 1.0) -> Array:
    """(rows, C) in C order -> (C,), times a factor."""
    rows, columns = x.shape
    slabs, sums = Slabs.of(rows, columns), cupy.empty(columns, dtype=x.dtype)
    if columns:
        parts = cupy.empty((slabs.slabs, columns), dtype=computed_in(x.dtype))
        slabs.launch("sums", "slab_sums", x, x, parts, *integers(rows, columns, slabs.size))
        slabs.settle(x, parts, sums, factor)
    return sums


def mean_factor(reduction: str, count: int) -> float:
    """What each of so many losses is worth in their mean or sum."""
    return 1.0 / max(count, 1) if reduction == "mean" else 1.0


def as_rows(x: Array) -> Array:
    """(..., C) -> (rows, C), in C order."""
    return dense(x).reshape(-1 if x.shape[-1] else 0, x.shape[-1])


def bias_grad(dy: Array) -> Array:
    """db = dy summed over all but the channels: (..., O) -> (O,)."""
    return column_sums(as_rows(dy))


def epilogue_grad(kept: Array, dy: Array, *, activation: str, sum_it: bool) -> tuple[Array, Array | None]:
    """dz, the gradient of what an activation was applied to, and its sum over all but the channels, in one pass."""
    kept, dy = dense(kept), dense(dy)
    if not sum_it or not dy.size:
        dz = gradient(activation, kept, dy)
        return dz, column_sums(as_rows(dz)) if sum_it else None
    rows = as_rows(dy)
    slabs, dz = Slabs.of(*rows.shape), cupy.empty(dy.shape, dtype=dy.dtype)
    parts = cupy.empty((slabs.slabs, slabs.columns), dtype=computed_in(dy.dtype))
    sizes, which = integers(*rows.shape, slabs.size), np.int32(NUMBERS[activation])
    slabs.launch("sums", "gradient_slab_sums", dy, kept, dy, dz, parts, *sizes, which, activation in FROM_OUTPUT)
    db = cupy.empty(slabs.columns, dtype=dy.dtype)
    slabs.settle(dy, parts, db)
    return dz, db


PRIMITIVES = {
    "bias_grad": Primitive(bias_grad, declines=unsupported),
    "epilogue_grad": Primitive(epilogue_grad, declines=unsupported),
}
