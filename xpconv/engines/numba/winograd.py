"""Running `kernels.winograd`: 3 × 3 convolutions of stride 1, as outputs and as input gradients."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import empty, kept, place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, walk
from xpconv.engines.numba.fields import PLANE_PAD, Reduce, Weighing, Winograd, WinogradOuter
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import PIECE
from xpconv.engines.numba.plan import ONE_TAP, Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import (
    Channels,
    Room,
    Slabs,
    Work,
    channels,
    cut_slabs,
    least_slabs,
    panel_of,
)
from xpconv.errors import dtype_name

_TILE_ROWS = 8  # register tiles in a task, fewer where that leaves only a few tasks
_LEAST_TASKS = 8


def suits(work: Work) -> bool:
    """Whether the pass is a 3 × 3 convolution of stride 1 on whole vectors of channels, of one group."""
    lanes = machine().lanes(work.dtype)
    whole = work.in_channels % lanes == 0 and work.out_channels % lanes == 0
    return whole and work.groups == 1 and work.p.three_by_three


class Cut(NamedTuple):
    """A pass in tasks of some output tiles, m × m pixels each."""

    m: int
    split: Channels
    chunk: int  # tiles of a task
    panel: int  # output channels of a task
    tasks: int
    plane: int  # bytes from plane to plane of transformed patches
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


def tiles_of(work: Work, m: int) -> int:
    """How many m × m tiles cover the pixels."""
    return work.images * math.prod(-(-n // m) for n in work.p.count)


@lru_cache(maxsize=1024)
def cut(work: Work, m: int, room: Room) -> Cut:
    """The tasks of `winograd` with F(m × m, 3 × 3)."""
    c, o, item = work.in_channels, work.out_channels, work.item
    split, planes, tiles = channels(work.dtype, o), (m + 2) ** 2, tiles_of(work, m)

    def plane(chunk: int) -> int:
        return chunk * c * item + PLANE_PAD

    def slot(rows: int) -> int:
        chunk = rows * split.rows
        nbytes = planes * (8 + plane(chunk) + chunk * split.block * item + PLANE_PAD) + 16 * chunk
        return -(-nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT

    most = min(_TILE_ROWS, max(-(-tiles // (_LEAST_TASKS * split.rows)), 2))
    rows, threads = room.fitted(most, room.threads_for(tiles * planes * c * o), slot)
    chunk = rows * split.rows
    chunks = -(-tiles // chunk)
    panel = panel_of(split, o, chunks)
    return Cut(m, split, chunk, panel, chunks * -(-o // panel), plane(chunk), slot(rows), threads)


def winograd(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for what `suits`."""
    c, o, dtype, m = weights.in_channels, weights.out_channels, dtype_name(x.dtype), cut.m
    sums = y if finish.sums is None else finish.sums
    late = finish.late
    u = kept(weights.source, ("winograd", weights.layout, m), lambda: weigh(weights, dtype, m))
    with borrowed(cut.scratch) as scratch:
        run(
            address("winograd", "winograd", dtype, *cut.split[:4], m, late),
            cut.tasks,
            *walk(x, sums, size, p, c * x.itemsize),
            *Winograd(
                place(u),
                c,
                o,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                cut.chunk,
                cut.panel,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
                cut.plane,
                place(ONE_TAP),
            ),
            threads=cut.threads,
        )


def weigh(weights: Weights, dtype: str, m: int) -> np.ndarray:
    """U = G w Gᵀ: (9, C, O) -> ((m + 2)², C, O)."""
    c, o = weights.in_channels, weights.out_channels
    u = empty(((m + 2) ** 2, c, o), dtype)
    threads = threads_for(u.size * 4)
    with borrowed(128 * threads) as scratch:
        run(
            address("winograd", "weigh", dtype, machine().lanes(dtype), m),
            c,
            *Weighing(weights.address, place(u), c, o, weights.row_bytes, scratch),
            threads=threads,
        )
    return u


class OuterCut(NamedTuple):
    """A weight gradient in tasks: a slab of 2 × 2 tiles by some output channels."""

    split: Channels
    chunk: int  # tiles taken at a time
    panel: int
    tasks: int
    slabs: Slabs

    @property
    def scratch(self) -> int:
        return self.slabs.slots + self.slabs.number * self.slabs.sum_bytes


@lru_cache(maxsize=1024)
def outer_cut(work: Work, room: Room) -> OuterCut:
    """The tasks of `winograd_outer`."""
    c, o, item, tiles = work.in_channels, work.out_channels, work.item, tiles_of(work, 2)
    split, chunk = channels(work.dtype, o), 64 if c < 128 else 128
    sum_bytes = 16 * c * o * item
    most = 16 if sum_bytes <= 2**19 else 4 if sum_bytes <= 2**21 else 1

    def slot(panel: int) -> int:
        nbytes = 16 * (8 + chunk * (c + panel) * item + 2 * PLANE_PAD) + (split.rows + chunk) * 8
        return -(-nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT

    threads, wanted = room.threads_for(tiles * 16 * c * o), max(min(most, tiles // (2 * chunk)), least_slabs(tiles))
    parts = cut_slabs(tiles, wanted, least_slabs(tiles), chunk, slot(o), sum_bytes, threads, room)
    panel = panel_of(split, o, parts.number)
    seats = room.without(parts.number * sum_bytes).seats(threads, slot(panel))
    parts = parts._replace(slot=slot(panel), threads=seats)
    return OuterCut(split, chunk, panel, parts.number * -(-o // panel), parts)


def winograd_outer(
    x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, cut: OuterCut
) -> None:
    """dw = Gᵀ [Σ over tiles of (Bᵀ x B) ⊗ (A dy Aᵀ)] G, as `outer.outer`, for what `suits`."""
    c, o, dtype, slabs = dw.shape[-2], dw.shape[-1], dtype_name(x.dtype), cut.slabs
    numbers = 16 * c * o
    with borrowed(cut.scratch) as scratch:
        sums = scratch + slabs.slots
        run(
            address("winograd", "outer", dtype, *cut.split[:4], 2),
            cut.tasks,
            *walk(x, dy, size, p, max(c, o) * x.itemsize),
            *WinogradOuter(sums, c, o, slabs.number, slabs.size, cut.chunk, cut.panel, scratch, slabs.slot),
            threads=slabs.threads,
        )
        if slabs.number > 1:
            run(
                address("outer", "reduce", dtype, cut.split.lanes),
                -(-numbers // PIECE),
                *Reduce(sums, sums, slabs.sum_bytes, slabs.number, numbers, PIECE),
                threads=threads_for(numbers * slabs.number),
            )
        run(
            address("winograd", "unweigh", dtype, cut.split.lanes, 2),
            c,
            *Weighing(sums, place(dw), c, o, o * x.itemsize, scratch),
            threads=min(threads_for(numbers), slabs.slots // 128),
        )
