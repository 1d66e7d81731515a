"""Running `kernels.direct`: one pass of a convolution's output or input gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import TERM_BLOCK, Direct, Walk
from xpconv.engines.numba.plan import Pass, triple
from xpconv.engines.numba.recording import hold
from xpconv.engines.numba.scratch import borrowed, zeros_address
from xpconv.engines.numba.team import run
from xpconv.engines.numba.tiling import Channels, Room, Work, channels, shared_out
from xpconv.errors import dtype_name

_TILES = 16  # of pixels in a task: enough for a panel of weights to pay for its way into the cache
_TURNED_TILES, _LONGEST = 64, 128  # and for being turned; more where their input is small enough to stay in the cache
_CACHE = 2**19
# What a task costs, in multiply-adds of a vector: in all, and for an address in a table.
_TASK, _ADDRESS = 500, 8
_IN_TILE = {None: 0, "relu": 1, "relu6": 2}  # kernels.registers


class Weights(NamedTuple):
    """Rows of output channels, one for each input channel of each kernel cell."""

    address: int
    row_bytes: int
    in_channels: int  # of a group
    out_channels: int  # of a group
    groups: int
    source: np.ndarray  # what they were made of, and how: the name that more can be kept under
    layout: str
    cells: int = 0  # of weights as they came, (cells, out_channels, in_channels of all groups), to be turned when read


class Finish(NamedTuple):
    """What is done to a sum before it is stored."""

    bias: np.ndarray | None = None
    residual: np.ndarray | None = None  # laid out as y
    activation: str | None = None
    sums: np.ndarray | None = None  # where to keep what the activation is applied to

    @property
    def late(self) -> str | None:
        """The activation that waits until a task has all its sums: one that tiles lack, or whose sums are kept."""
        return None if self.activation in _IN_TILE and self.sums is None else self.activation

    @property
    def in_tile(self) -> int:
        """The number of the activation that tiles apply."""
        return _IN_TILE[self.activation] if self.late is None else 0


class Cut(NamedTuple):
    """A pass in tasks: some pixels by some output channels of a group."""

    split: Channels
    chunk: int  # pixels
    panel: int
    tasks: int
    turned: int  # where a thread's scratch has turned weights
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


@lru_cache(maxsize=1024)
def cut(work: Work, room: Room) -> Cut:
    """The tasks of `direct`."""
    split, terms = channels(work.dtype, work.out_channels), work.p.run * work.in_channels
    cell = work.in_channels * work.groups * work.item
    turned = TERM_BLOCK * split.block * work.item + 64 * len(work.p.taps) if work.turned else 0  # whole lines

    def slot(tiles: int) -> int:
        return scratch_bytes(tiles * split.rows, split.rows, work.p, cell) + turned

    def cost(tiles: int, vectors: int, _: int) -> float:
        sums = (tiles + work.turned) * vectors * terms + tiles * _ADDRESS  # turning costs as much as a tile
        return sums * len(work.p.taps) * split.rows + _TASK

    most = min(max(_CACHE // (split.rows * cell), _TURNED_TILES), _LONGEST) if work.turned else _TILES
    most, threads = room.fitted(most, room.threads_for(work.multiply_adds), slot)
    tiles = -(-work.pixels // split.rows)
    tiles, panel = shared_out(tiles, 1, most, split, work.out_channels, [1] * work.groups, threads, cost)
    chunk = tiles * split.rows
    tasks = -(-work.pixels // chunk) * -(-work.out_channels // panel) * work.groups
    return Cut(split, chunk, panel, tasks, slot(tiles) - turned, slot(tiles), threads)


def walk(x: np.ndarray, y: np.ndarray, size: tuple[int, ...], p: Pass, cell: int) -> tuple[int, ...]:
    """The `Walk` of a pass over x (cells of so many bytes) and y, both with channels side by side."""
    first, rest = _route(x.shape[0], x.strides, y.strides, size, p, cell)
    hold(p.taps)
    return (place(x), place(y) + first, *rest)


@lru_cache(maxsize=1024)
def _route(
    images: int, xs: tuple[int, ...], ys: tuple[int, ...], size: tuple[int, ...], p: Pass, cell: int
) -> tuple[int, tuple[int, ...]]:
    """Where in y the first pixel is, and all of a `Walk` but its first two addresses."""
    (x0, x1, x2), spots = triple(xs[1:-1], 0), triple(ys[1:-1], 0)
    first = sum(stride * start for stride, start in zip(spots, p.start, strict=True))
    y0, y1, y2 = (stride * spacing for stride, spacing in zip(spots, p.spacing, strict=True))
    size0, size1, size2 = triple(size, 1)
    whole = Walk(
        0, 0, images, *p.count, size0, size1, size2, *p.step, xs[0], x0, x1, x2, ys[0], y0, y1, y2,
        place(p.taps), len(p.taps), p.run, cell, zeros_address(p.run * cell),
    )  # fmt: skip
    return first, whole[2:]


def scratch_bytes(pixels: int, rows: int, p: Pass, cell: int) -> int:
    """For the tables of so many pixels, and copies of the runs that hang over an edge."""
    tables = 8 * ((pixels + rows) * (1 + len(p.taps)) + len(p.taps) + rows)
    edges = pixels * len(p.taps) * p.run * cell if p.run > 1 else 0
    # Not a multiple of the page: threads' tables should not share the same few sets of the cache.
    return -(-(tables + edges) // 4096) * 4096 + 256


def direct(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), for the pixels of one pass."""
    c, o, groups = weights.in_channels, weights.out_channels, weights.groups
    late = finish.late
    sums = y if finish.sums is None else finish.sums
    with borrowed(cut.scratch) as scratch:
        run(
            address("direct", "direct", dtype_name(x.dtype), *cut.split, late),
            cut.tasks,
            *walk(x, sums, size, p, x.shape[-1] * x.itemsize),
            *Direct(
                weights.address,
                weights.row_bytes,
                p.run * c,
                o,
                groups,
                c * x.itemsize,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                cut.chunk,
                cut.panel,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
                weights.cells,
                cut.turned,
            ),
            threads=cut.threads,
        )
