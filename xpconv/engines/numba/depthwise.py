"""Running `kernels.depthwise`: convolutions whose channels are groups of their own."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, walk
from xpconv.engines.numba.fields import PIXEL_BLOCK, Depthwise, DepthwiseOuter
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import add_up, sums_at
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run
from xpconv.engines.numba.tiling import (
    Channels,
    Room,
    Slabs,
    Work,
    channels,
    cut_slabs,
    least_slabs,
    panel_of,
    slabs_of,
)
from xpconv.errors import dtype_name

_TILES = 16  # of pixels in a task
_NEIGHBOURS = 8  # pixels of a tile
_WEIGHT = 4  # of a multiply-add: it waits for memory


def neighbours(count: int) -> int:
    """Pixels of a tile, such that rows of so many pixels come out even, or nearly."""
    return max(-(-count // -(-count // _NEIGHBOURS)), 4) if count else 4


class Cut(NamedTuple):
    """A pass in tasks: some tiles of neighbouring pixels by some channels."""

    split: Channels
    across: int  # taps side by side
    panel: int
    tasks: int
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


@lru_cache(maxsize=1024)
def cut(work: Work, room: Room) -> Cut:
    """The tasks of `depthwise`."""
    p, across = work.p, work.p.side_by_side
    rows = neighbours(p.count[2])
    split = channels(work.dtype, work.groups, 2 if machine().registers >= 32 else 1)._replace(rows=rows)
    chunks = -(-work.images * p.count[0] * p.count[1] * -(-p.count[2] // rows) // _TILES)
    panel = panel_of(split, work.groups, chunks)
    slot = 8 * (len(p.taps) + 1) * ((rows - 1) * p.step[2] + across) + 256
    threads = room.seats(room.threads_for(_WEIGHT * work.multiply_adds), slot)
    return Cut(split, across, panel, chunks * -(-work.groups // panel), slot, threads)


def depthwise(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for as many groups as channels with one output each."""
    c, across = weights.groups, cut.across
    w_tap = int(p.taps[1, 3] - p.taps[0, 3]) * weights.row_bytes if across > 1 else 0
    late = finish.late
    sums = y if finish.sums is None else finish.sums
    with borrowed(cut.scratch) as scratch:
        run(
            address("depthwise", "depthwise", dtype_name(x.dtype), *cut.split, across, p.step[2], late),
            cut.tasks,
            *walk(x, sums, size, p, c * x.itemsize),
            *Depthwise(
                weights.address,
                weights.row_bytes,
                w_tap,
                c,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                _TILES,
                cut.panel,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
            ),
            threads=cut.threads,
        )


class OuterCut(NamedTuple):
    """A weight gradient in tasks: a slab of rows of pixels by some channels."""

    rows: int  # pixels of a tile
    at_once: int  # tap rows
    split: Channels
    across: int
    panel: int
    tasks: int
    slabs: Slabs

    @property
    def scratch(self) -> int:
        return self.slabs.scratch


@lru_cache(maxsize=1024)
def outer_cut(work: Work, room: Room) -> OuterCut:
    """The tasks of `depthwise_outer`."""
    p, across, c = work.p, work.p.side_by_side, work.groups
    tap_rows = len(p.taps) // across
    sums = 24 if machine().registers >= 32 else 9
    at_once = max(n for n in range(1, tap_rows + 1) if tap_rows % n == 0 and (n * across <= sums or n == 1))
    rows = max(n for n in range(1, _NEIGHBOURS + 1) if p.count[2] % n == 0 or n == 1)
    per_pixel = at_once * ((rows - 1) * p.step[2] + across) + rows
    slot = -(-8 * (PIXEL_BLOCK + rows) * max(per_pixel, at_once * across + 1) // ALIGNMENT) * ALIGNMENT + 256
    sum_bytes, image_rows = work.weights * work.item, work.images * p.count[0] * p.count[1]
    wanted = max(min(slabs_of(sum_bytes, work.pixels), image_rows), 1)
    threads = room.threads_for(_WEIGHT * work.multiply_adds)
    parts = cut_slabs(image_rows, wanted, least_slabs(work.pixels), 1, slot, sum_bytes, threads, room)
    split = channels(work.dtype, c, 1)
    panel = panel_of(split, c, parts.number)
    return OuterCut(rows, at_once, split, across, panel, parts.number * -(-c // panel), parts)


def depthwise_outer(
    x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, cut: OuterCut
) -> None:
    """dw = Σ over pixels of x under each tap · dy, as `outer.outer`, for as many groups as channels."""
    c, lanes, partial, dtype = dw.shape[-1], cut.split.lanes, cut.split.partial, dtype_name(x.dtype)
    row = c * x.itemsize
    with borrowed(cut.scratch) as scratch:
        parts = sums_at(scratch, dw, cut.slabs)
        run(
            address(
                "depthwise", "depthwise_outer", dtype, cut.rows, cut.at_once, lanes, partial, cut.across, p.step[2]
            ),
            cut.tasks,
            *walk(x, dy, size, p, row),
            *DepthwiseOuter(
                parts, row, c, cut.slabs.number, cut.slabs.size, dw.nbytes, cut.panel, scratch, cut.slabs.slot
            ),
            threads=cut.slabs.threads,
        )
        add_up(parts, dw, cut.slabs)
