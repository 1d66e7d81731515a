"""Running `kernels.depthwise`: convolutions whose channels are groups of their own."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place, place_of, streams
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, walk
from xpconv.engines.numba.fields import TAP_BLOCK, Depthwise, DepthwiseOuter
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import add_up, sums_at
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import borrowed
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

_TASKS = 64  # at most, of whole groups of lines
_NEIGHBOURS = 8  # pixels of a tile
_WEIGHT = 4  # of a multiply-add: it waits for memory
_SLOT = 64  # bytes of scratch of a thread: an address


class Blocks(NamedTuple):
    """The taps of a pass in blocks of tap rows below one another, each of a run of taps side by side."""

    tap_rows: int
    run: int
    w_tap: int  # rows of weights from tap to tap
    w_line: int  # and from tap row to tap row


@lru_cache(maxsize=1024)
def blocks(p: Pass, most: int) -> Blocks:
    """The largest blocks of at most so many taps; of one tap row at least."""
    run = p.side_by_side
    heads = p.taps[::run]
    w_tap = int(p.taps[1, 3] - p.taps[0, 3]) if run > 1 else 0
    steps = np.diff(heads, axis=0)
    for tap_rows in range(min(len(heads), most // run), 1, -1):
        if len(heads) % tap_rows == 0:
            inner = np.delete(steps, np.arange(tap_rows - 1, len(steps), tap_rows), axis=0)
            if (inner == (0, 1, 0, inner[0, 3])).all():
                return Blocks(tap_rows, run, w_tap, int(inner[0, 3]))
    return Blocks(1, run, w_tap, 0)


def suits(p: Pass) -> bool:
    """Whether the sums of a pixel that stands for several outputs fit the registers, and its taps one block."""
    most = 2 * _NEIGHBOURS if machine().registers >= 32 else _NEIGHBOURS
    block = blocks(p, TAP_BLOCK)
    return p.up[0] * p.up[1] <= most and block.tap_rows * block.run == len(p.taps)


class Cut(NamedTuple):
    """A pass in tasks: some groups of lines of pixels by some channels."""

    split: Channels
    lines: int  # of a tile
    blocks: Blocks
    chunk: int  # groups of lines of a task
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
    p, many = work.p, machine().registers >= 32
    outputs = p.up[0] * p.up[1]  # of a pixel
    lines = 2 if p.count[1] > 1 and outputs == 1 else 1
    most = _NEIGHBOURS if many or lines * outputs == 1 else _NEIGHBOURS // 2
    most = max(2 * most // outputs, 1) if outputs > 1 else most
    rows = -(-p.count[2] // -(-p.count[2] // most)) if p.count[2] else 1  # lines come out even, or nearly
    split = channels(work.dtype, work.groups, 1)._replace(rows=rows)
    groups = work.images * p.count[0] * -(-p.count[1] // lines)
    chunk = max(-(-groups // _TASKS), 1)
    chunks = -(-groups // chunk)
    panel = panel_of(split, work.groups, chunks)
    threads = room.seats(room.threads_for(_WEIGHT * work.multiply_adds), _SLOT)
    return Cut(split, lines, blocks(p, TAP_BLOCK), chunk, panel, chunks * -(-work.groups // panel), _SLOT, threads)


def depthwise(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for as many groups as channels with one output each."""
    c, (tap_rows, run_, w_tap, w_line) = weights.groups, cut.blocks
    late, (rows, _, _, lanes, partial) = finish.late, cut.split
    sums = y if finish.sums is None else finish.sums
    with borrowed(cut.scratch) as scratch:
        run(
            address(
                "depthwise",
                "depthwise",
                dtype_name(x.dtype),
                cut.lines,
                rows,
                lanes,
                partial,
                tap_rows,
                run_,
                p.step[1],
                p.step[2],
                *p.up,
                *p.shift,
                len(p.taps) == tap_rows * run_,
                late,
            ),
            cut.tasks,
            *walk(x, sums, size, p, c * x.itemsize),
            *Depthwise(
                weights.address,
                weights.row_bytes,
                w_tap * weights.row_bytes,
                w_line * weights.row_bytes,
                c,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                cut.chunk,
                cut.panel,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
                int(late is None and streams(x, sums, lanes)),
                *(p.outputs or p.count[1:]),
            ),
            threads=cut.threads,
        )


class OuterCut(NamedTuple):
    """A weight gradient in tasks: a slab of lines of pixels by some channels."""

    split: Channels
    blocks: Blocks
    panel: int
    tasks: int
    slabs: Slabs

    @property
    def scratch(self) -> int:
        return self.slabs.scratch


@lru_cache(maxsize=1024)
def outer_cut(work: Work, room: Room) -> OuterCut:
    """The tasks of `depthwise_outer`."""
    p, c = work.p, work.groups
    rows = _neighbours_inside(p)
    sum_bytes, lines = work.weights * work.item, work.images * p.count[0] * p.count[1]
    wanted = max(min(slabs_of(sum_bytes, work.pixels), lines), 1)
    threads = room.threads_for(_WEIGHT * work.multiply_adds)
    parts = cut_slabs(lines, wanted, least_slabs(work.pixels), 1, _SLOT, sum_bytes, threads, room)
    split = channels(work.dtype, c, 1)._replace(rows=rows)
    panel = panel_of(split, c, parts.number)
    of_taps = blocks(p, 24 if machine().registers >= 32 else 9)
    return OuterCut(split, of_taps, panel, parts.number * -(-c // panel), parts)


def _neighbours_inside(p: Pass) -> int:
    """Pixels of a tile, such that few in a line are left over between its edges: where padding is even, that is."""
    first = max(-int(p.taps[:, 2].min(initial=0)), 0)
    inside = max(p.count[2] - (2 if p.step[2] == 1 else 1) * -(-first // p.step[2]), 1)
    return min(range(_NEIGHBOURS, min(3, inside - 1), -1), key=lambda n: inside % n)


def depthwise_outer(
    x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, cut: OuterCut
) -> None:
    """dw = Σ over pixels of x under each tap · dy, as `outer.outer`, for as many groups as channels."""
    c, (rows, _, _, lanes, partial), row = dw.shape[-1], cut.split, dw.shape[-1] * x.itemsize
    kernel = ("depthwise", "depthwise_outer", dtype_name(x.dtype), rows, lanes, partial)
    with borrowed(cut.scratch) as scratch:
        parts = sums_at(scratch, dw, cut.slabs)
        run(
            address(*kernel, cut.blocks.tap_rows, cut.blocks.run, p.step[1], p.step[2]),
            cut.tasks,
            *walk(x, dy, size, p, row),
            *DepthwiseOuter(parts, row, c, cut.slabs.number, cut.slabs.size, dw.nbytes, cut.panel),
            threads=cut.slabs.threads,
        )
        add_up(parts, dw, cut.slabs)
