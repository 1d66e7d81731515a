"""Running `kernels.depthwise`: convolutions whose channels are groups of their own."""

from __future__ import annotations

import numpy as np

from xpconv.engines.numba.arrays import place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import IN_TILE, Finish, Weights, walk
from xpconv.engines.numba.fields import Depthwise, DepthwiseOuter
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import add_up
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import PIXEL_BLOCK, channels, panel_of, slabs_of

_TILES = 16  # of pixels in a task
_NEIGHBOURS = 8  # pixels of a tile


def neighbours(count: int) -> int:
    """Pixels of a tile, such that rows of so many pixels come out even, or nearly."""
    return max(-(-count // -(-count // _NEIGHBOURS)), 4) if count else 4


def depthwise(x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for as many groups as channels with one output each."""
    item, dtype, c = x.itemsize, x.dtype.name, weights.groups
    across = p.side_by_side
    rows = neighbours(p.count[2])
    split = channels(dtype, c, 2 if machine().registers >= 32 else 1)._replace(rows=rows)
    tiles = x.shape[0] * p.count[0] * p.count[1] * -(-p.count[2] // rows)
    chunks = -(-tiles // _TILES)
    panel = panel_of(split, c, chunks)
    w_tap = int(p.taps[1, 3] - p.taps[0, 3]) * weights.row_bytes if across > 1 else 0
    slot = 8 * (len(p.taps) + 1) * ((rows - 1) * p.step[2] + across) + 256
    threads = threads_for(4 * x.shape[0] * p.pixels * len(p.taps) * c)
    late = None if finish.activation in IN_TILE else finish.activation
    sums = y if finish.sums is None else finish.sums
    with borrowed(slot * threads) as scratch:
        run(
            address("depthwise", "depthwise", dtype, *split, across, p.step[2], late),
            chunks * -(-c // panel),
            *walk(x, sums, size, p, c * item),
            *Depthwise(
                weights.address,
                weights.row_bytes,
                w_tap,
                c,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                IN_TILE.get(finish.activation, 0),
                _TILES,
                panel,
                scratch,
                slot,
                place(y) - place(sums),
            ),
            threads=threads,
        )


def depthwise_outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass) -> None:
    """dw = Σ over pixels of x under each tap · dy, as `outer.outer`, for as many groups as channels."""
    item, dtype, c = x.itemsize, x.dtype.name, dw.shape[-1]
    cpu = machine()
    across = p.side_by_side
    tap_rows = len(p.taps) // across
    sums = 24 if cpu.registers >= 32 else 9
    at_once = max(n for n in range(1, tap_rows + 1) if tap_rows % n == 0 and (n * across <= sums or n == 1))
    rows = max(n for n in range(1, _NEIGHBOURS + 1) if p.count[2] % n == 0 or n == 1)
    split = channels(dtype, c, 1)
    image_rows = max(x.shape[0] * p.count[0] * p.count[1], 1)
    slabs = min(slabs_of(dw.nbytes, x.shape[0] * p.pixels), image_rows)
    slab_rows = -(-image_rows // slabs)
    slabs = -(-image_rows // slab_rows)
    panel = panel_of(split, c, slabs)
    per_pixel = at_once * ((rows - 1) * p.step[2] + across) + rows
    slot = -(-8 * (PIXEL_BLOCK + rows) * max(per_pixel, at_once * across + 1) // ALIGNMENT) * ALIGNMENT + 256
    threads = threads_for(4 * x.shape[0] * p.pixels * dw.size)
    with add_up(dw, slabs, slot * threads) as (parts, scratch):
        run(
            address(
                "depthwise", "depthwise_outer", dtype, rows, at_once, split.lanes, split.partial, across, p.step[2]
            ),
            slabs * -(-c // panel),
            *walk(x, dy, size, p, c * item),
            *DepthwiseOuter(parts, c * item, c, slabs, slab_rows, dw.nbytes, panel, scratch, slot),
            threads=threads,
        )
