"""Sums over all axes but the last, and the gradient of an activation on the way: two launches, no atomics."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.activations import FROM_OUTPUT
from xpconv.backend import Array
from xpconv.dispatch import Primitive
from xpconv.engines.cupy.activation import NUMBERS, gradient
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, kernel, pointers, width_of
from xpconv.errors import dtype_name

BLOCKS = 1024  # that fill a large GPU, several to each of its processors
SLAB_WIDTH = 4  # the most neighbouring columns of a thread, which keeps a few numbers for each

_THREADS = 256
_ROWS = 8, 64  # of a thread: enough to be worth adding up, few enough for one block of a sum
_TERMS = 128  # that may be added up one by one
_MOST_SLABS = 65535  # the grid's second axis
_ACROSS = 32, 16, 8  # threads that neighbouring columns are shared out to
_SETTLED = 8  # columns of a block that adds up what the slabs have


class Slabs(NamedTuple):
    """How rows are shared out among blocks, by the shape alone."""

    rows: int
    columns: int
    width: int  # neighbouring columns of a thread
    across: int  # threads that stand beside one another
    size: int  # rows in a slab

    @classmethod
    @functools.lru_cache(maxsize=4096)
    def of(cls, rows: int, columns: int, width: int = 1, *, blocks: int = BLOCKS, terms: int = 1) -> Slabs:
        """Slabs of (rows, columns), as many as make so many blocks; fewer where each would have too little to do.

        ``terms`` is how many each row adds to a thread's sum.
        """
        packs = max(columns // width, 1)
        across = min(_ACROSS, key=lambda n: (-(-packs // n) * n, -n))  # the fewest threads without work
        across = min(across, 1 << (packs - 1).bit_length())
        down, wanted = _THREADS // across, max(blocks // -(-packs // across), 1)
        size = min(max(-(-rows // wanted), _ROWS[0] * down), min(_ROWS[1], _TERMS // terms) * down)
        return cls(rows, columns, width, across, -(-max(size, -(-rows // _MOST_SLABS)) // down) * down)

    @property
    def slabs(self) -> int:
        return max(-(-self.rows // self.size), 1)

    @property
    def tiles(self) -> int:
        return max(-(-self.columns // (self.across * self.width)), 1)

    def launch(
        self, module: str, name: str, like: Array, *args: Any, times: int = 1, batches: int = 1, largest: int = 0
    ) -> None:
        """Launch a kernel of slabs: a grid of (``times`` the tiles of columns, slabs, ``batches``)."""
        largest = max(largest, max(self.rows, self.slabs) * self.columns * batches)
        compiled = kernel(module, name, dtype_name(like.dtype), largest, self.width)
        compiled((times * self.tiles, self.slabs, batches), (self.across, _THREADS // self.across), pointers(args))


def settle(parts: Array, result: Array, factor: float = 1.0) -> None:
    """result = factor times the sums that each slab has in ``parts``, (slabs, ...)."""
    slabs = parts.size // max(result.size, 1)
    args = (parts, result, *integers(slabs, result.size), np.float64(factor))
    launch_settling("sums", "settle", result, result.size, *args, largest=parts.size)


def launch_settling(
    module: str, name: str, like: Array, columns: int, *args: Any, batches: int = 1, largest: int
) -> None:
    """Launch a kernel whose blocks take a few columns of what slabs have: a grid of (tiles of columns, batches)."""
    if columns and batches:
        compiled = kernel(module, name, dtype_name(like.dtype), largest)
        compiled((-(-columns // _SETTLED), batches), (_SETTLED, _THREADS // _SETTLED), pointers(args))


def column_sums(x: Array, factor: float = 1.0) -> Array:
    """(rows, C) in C order -> (C,), times a factor."""
    rows, columns = x.shape
    slabs, sums = Slabs.of(rows, columns, width_of(columns, x, most=SLAB_WIDTH)), cupy.empty(columns, dtype=x.dtype)
    if columns:
        parts = cupy.empty((slabs.slabs, columns), dtype=computed_in(x.dtype))
        slabs.launch("sums", "slab_sums", x, x, parts, *integers(rows, columns, slabs.size))
        settle(parts, sums, factor)
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
    rows, dz = as_rows(dy), cupy.empty(dy.shape, dtype=dy.dtype)
    slabs = Slabs.of(rows.shape[0], rows.shape[1], width_of(dy.shape[-1], dy, kept, dz, most=SLAB_WIDTH))
    parts = cupy.empty((slabs.slabs, slabs.columns), dtype=computed_in(dy.dtype))
    sizes, which = integers(*rows.shape, slabs.size), np.int32(NUMBERS[activation])
    slabs.launch("sums", "gradient_slab_sums", dy, kept, dy, dz, parts, *sizes, which, activation in FROM_OUTPUT)
    db = cupy.empty(slabs.columns, dtype=dy.dtype)
    settle(parts, db)
    return dz, db


PRIMITIVES = {
    "bias_grad": Primitive(bias_grad, declines=unsupported),
    "epilogue_grad": Primitive(epilogue_grad, declines=unsupported),
}
