"""Instance and group normalisation: by tiles that a block holds, where a sample is small enough, else like batches."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, dense_or_none, unsupported
from xpconv.engines.cupy.compiled import kernel, pointers, width_of
from xpconv.engines.cupy.norm import (
    STATISTICS,
    Kept,
    Layout,
    empty_table,
    gradients,
    normalised,
    parameter_gradients,
    table_of,
)
from xpconv.errors import dtype_name

# Of a block; the second, of which a processor has room for one or two, where the first cannot hold the rows.
_THREADS = 256, 512
_ROWS = 8  # as in the kernels' source: of a thread
_CHANNELS = 256  # likewise: of a block
_LINE = 32  # bytes of a row that are worth a load from memory


class _Tiles(NamedTuple):
    """Blocks of whole groups of one sample, of which they hold every number: ``across`` packs of channels."""

    layout: Layout
    width: int
    across: int
    down: int

    @classmethod
    @functools.lru_cache(maxsize=4096)
    def of(cls, layout: Layout, width: int, itemsize: int) -> _Tiles | None:
        """The tiles with the fewest threads that have no channels; `None` where no block holds enough rows."""
        unit, packs = math.lcm(layout.each, width) // width, -(-layout.channels // width)
        least = min(-(-_LINE // (width * itemsize)), packs)
        for threads in _THREADS:
            fitting = [
                across
                for across in range(unit, min(_CHANNELS // width, -(-packs // unit) * unit) + 1, unit)
                if across >= least and layout.rows <= _ROWS * _down(across, threads)
            ]
            if fitting:
                across = min(fitting, key=lambda across: (-(-packs // across) * across, -across))
                return cls(layout, width, across, _down(across, threads))
        return None

    def launch(self, name: str, x: Array, *args: Any) -> None:
        """Launch a kernel on a grid of (tiles of channels, batches)."""
        batches, _, channels, _ = self.layout
        grid = -(-channels // (self.across * self.width)), batches
        largest = max(x.size, STATISTICS * batches * channels)
        compiled = kernel("norm_tiles", name, dtype_name(x.dtype), largest, self.width)
        compiled(grid, (self.across, self.down), pointers((*args, self.layout.struct())))


def _down(across: int, threads: int) -> int:
    """Threads below one another, a power of two."""
    return 1 << (threads // across).bit_length() - 1


def _tiles(layout: Layout, x: Array, *arrays: Array | None) -> _Tiles | None:
    return _Tiles.of(layout, width_of(layout.channels, x, *arrays), x.dtype.itemsize) if x.size else None


def _by_sample(
    x: Array, gamma: Array | None, beta: Array | None, needs: Needs, eps: float, each: int
) -> tuple[Array, Any]:
    """y = x̂ · gamma + beta, with moments of each sample and group."""
    x, gamma, beta = dense(x), dense_or_none(gamma), dense_or_none(beta)
    layout = Layout(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1], each)
    y = cupy.empty(x.shape, dtype=x.dtype)
    tiles = _tiles(layout, x, y, gamma, beta)
    if tiles:
        table = empty_table(x, layout) if any(needs) else None
        tiles.launch("normalise_tiles", x, x, gamma, beta, y, table, np.float64(eps))
    else:
        table = table_of(x, layout, eps)
        y, _ = normalised(x, table, (gamma, beta), layout, None)
    return y, Kept(x, gamma, beta, table, layout, False, None) if any(needs) else None


def _gradients(kept: Kept, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """The gradients of x, gamma and beta."""
    x, gamma, layout, dy = kept.x, kept.gamma, kept.layout, dense(dy)
    dx = cupy.empty(x.shape, dtype=x.dtype)
    tiles = _tiles(layout, x, dy, dx, gamma) if needs[0] else None
    if tiles is None:
        return gradients(kept, dy, needs)
    parts = cupy.empty((layout.batches, 1, 2, layout.channels), dtype=kept.table.dtype)
    tiles.launch("gradient_tiles", x, x, dy, kept.table, gamma, dx, parts)
    return dx, *(parameter_gradients(kept, parts, needs[1:]) if any(needs[1:]) else (None, None))


def _instance_norm(x: Array, gamma: Any, beta: Any, *, needs: Needs, eps: float) -> tuple[Array, Any]:
    return _by_sample(x, gamma, beta, needs, eps, 1)


def _group_norm(x: Array, gamma: Any, beta: Any, *, needs: Needs, num_groups: int, eps: float) -> tuple[Array, Any]:
    return _by_sample(x, gamma, beta, needs, eps, x.shape[-1] // num_groups)


def _declines(x: Array, *arrays: Any, **_: Any) -> str | None:
    if x.shape[0] > 65535:  # the most that a grid's other axes have
        return "normalises at most 65535 samples at a time"
    return unsupported(x, *arrays)


PRIMITIVES = {
    "instance_norm": Primitive(_instance_norm, _gradients, _declines),
    "group_norm": Primitive(_group_norm, _gradients, _declines),
}
