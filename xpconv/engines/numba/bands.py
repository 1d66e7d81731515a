"""Running `kernels.bands`: convolutions with few input channels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place, place_of, streams
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, walk
from xpconv.engines.numba.fields import CACHE_LINE, TERM_BLOCK, Bands
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run
from xpconv.engines.numba.tiling import Room, Work
from xpconv.errors import dtype_name

_TASKS = 16  # bands in all, where there are lines for them
_BAND = 4  # lines of a task at least: the rows that two share are copied for each
_COPIED = 2**14  # bytes of the copies of a task, about: they stay in the core's nearest cache
_LEAST = 4  # lanes of the shortest vectors, if the CPU has as many
_TABLE = 64  # bytes of scratch of a thread for an address


class Cut(NamedTuple):
    """A pass in tasks: a band of lines of pixels of an image."""

    name: str  # of the kernel
    rows: int  # pixels of a tile, or lines, if pixels are in the lanes
    vectors: int
    lanes: int
    constants: tuple[Any, ...]  # what else the kernel is compiled for
    offsets: np.ndarray  # bytes from a pixel's first cell to each tap, or to each term, in what is copied
    terms: int  # from each of them on
    part: int  # of them, in a running sum
    row: int  # bytes of a copied row
    band: int
    tasks: int
    copied: int  # numbers that a task copies
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


def _suits(work: Work) -> bool:
    p = work.p
    runs = p.run > 1 and p.run * work.in_channels <= TERM_BLOCK
    return runs and work.groups == 1 and p.rank <= 2 and len(p.taps) * p.count[1] * p.count[2] > 0


def suits_lines(work: Work) -> bool:
    """Whether outputs come in whole vectors, and runs of cells in sums of their own."""
    return _suits(work) and work.out_channels % machine().lanes(work.dtype) == 0


def suits_pixels(work: Work) -> bool:
    """Whether sums of all output channels fit the registers and are one run of terms, and a line fills a vector."""
    few = work.out_channels <= machine().accumulators * 2 // 3 and work.p.cells * work.in_channels <= TERM_BLOCK
    return _suits(work) and few and len(_widths(work.dtype, work.p.count[2])) > 0


@lru_cache(maxsize=1024)
def lines_cut(work: Work, room: Room) -> Cut:
    """The tasks of `kernels.bands.lines`."""
    p, c, across, cpu = work.p, work.in_channels, work.p.count[2], machine()
    lanes = cpu.lanes(work.dtype)
    vectors = next(v for v in range(cpu.widest, 0, -1) if work.out_channels // lanes % v == 0)
    rows = _neighbours(across, cpu.tile(work.dtype, vectors).pixels)
    row = ((across - 1) * p.step[2] + p.run) * c * work.item
    parts = -(-len(p.taps) // (TERM_BLOCK // (p.run * c)))
    part = -(-len(p.taps) // parts)
    constants = (c, p.step[2], parts == 1)
    offsets = (p.taps[:, 1] - p.taps[0, 1]) * row
    return Cut("lines", rows, vectors, lanes, constants, offsets, p.run * c, part, *_bands(work, room, row, 1))


def _neighbours(pixels: int, most: int) -> int:
    """Pixels of a tile: many, such that few of a line are done twice."""
    most = min(most, pixels)
    return min(range(most, most // 2, -1), key=lambda n: -(-pixels // n) * (2 * n + 1))


@lru_cache(maxsize=1024)
def pixels_cut(work: Work, room: Room) -> Cut:
    """The tasks of `kernels.bands.pixels`."""
    p, c, o, (_, lines, across) = work.p, work.in_channels, work.out_channels, work.p.count
    lanes = _lanes_for(work.dtype, across)
    most, wanted = max(machine().accumulators // o, 1), -(-across // lanes)
    vectors = -(-wanted // -(-wanted // min(most, wanted)))
    rows, step = min(most // vectors, lines), p.step[2]
    plane = (((across - 1) * step + p.run - 1) // step + 1) * work.item
    row, cells = c * step * plane, np.arange(p.run)
    of_cells = (cells % step * plane + cells // step * work.item)[:, None] + np.arange(c) * step * plane
    offsets = ((p.taps[:, 1] - p.taps[0, 1]) * row)[:, None, None] + of_cells
    return Cut("pixels", rows, vectors, lanes, (c, o, step), offsets, 1, offsets.size, *_bands(work, room, row, rows))


def _widths(dtype: str, pixels: int) -> list[int]:
    """How many lanes the vectors of a line may have."""
    most = machine().lanes(dtype)
    return [lanes for lanes in (most, most // 2, most // 4) if min(_LEAST, most) <= lanes <= pixels]


def _lanes_for(dtype: str, pixels: int) -> int:
    """Lanes of the vectors that do a line of pixels in the least time."""
    cpu = machine()

    def time(lanes: int) -> float:
        return -(-pixels // lanes) * (max(lanes, cpu.lanes(dtype) // 2) if cpu.halves else 1)

    return min(_widths(dtype, pixels), key=time)


def _bands(work: Work, room: Room, row: int, lines: int) -> tuple[int, int, int, int, int, int]:
    """From ``row`` on what is in a `Cut`, for tiles of so many lines."""
    p, count = work.p, work.p.count[1]
    bands = max(min(-(-_TASKS // max(work.images, 1)), count // _BAND), -(-count * p.step[1] * row // _COPIED), 1)
    band = -(-count // (bands * lines)) * lines
    copied = ((band - 1) * p.step[1] + int(p.taps[-1, 1] - p.taps[0, 1]) + 1) * row
    slot = -(-(_TABLE + copied) // CACHE_LINE) * CACHE_LINE
    threads = room.seats(room.threads_for(work.multiply_adds), slot)
    return row, band, work.images * -(-count // band), copied // work.item, slot, threads


def banded(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for what suits."""
    late, sums = finish.late, y if finish.sums is None else finish.sums
    kernel = (cut.name, dtype_name(x.dtype), cut.rows, cut.vectors, cut.lanes, *cut.constants, late)
    with borrowed(cut.scratch) as scratch:
        run(
            address("bands", *kernel),
            cut.tasks,
            *walk(x, sums, size, p, x.shape[-1] * x.itemsize),
            *Bands(
                weights.address,
                weights.row_bytes,
                y.shape[-1],
                place(cut.offsets),
                cut.offsets.size,
                cut.terms,
                cut.part,
                p.step[1] * cut.row,
                cut.row,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                cut.band,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
                int(cut.name == "lines" and late is None and streams(x, sums, cut.lanes)),
            ),
            threads=cut.threads,
        )
