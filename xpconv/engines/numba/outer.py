"""Running `kernels.outer`: the weight gradient of a convolution or a linear layer."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import scratch_bytes, walk
from xpconv.engines.numba.fields import PIXEL_BLOCK, Outer, Reduce
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import (
    Channels,
    Room,
    Slabs,
    Work,
    channels,
    cut_slabs,
    filled,
    least_slabs,
    shared_out,
    slabs_of,
    taps_of,
)
from xpconv.errors import dtype_name

PIECE = 8192  # numbers of a task that adds slabs up
_LEAST_TILES = 4  # of input channels in a task
# What a task costs, in multiply-adds of a vector: in all, and for a pixel that is looked up and read once more.
_TASK, _PIXEL = 500, 12
# Bytes of sums that stay in a core's cache beside x and dy, and what it costs where they do not.
_CACHE, _BEYOND = 2**18, 1.06
_STRETCH, _APART = 512, 1024  # pixels at most; bytes between them whose multiples are shunned
_SMALL = 2**16  # bytes of sums that stay near whatever a tile goes along


class Cut(NamedTuple):
    """A weight gradient in tasks: a slab of pixels by some taps by some input and output channels of a group."""

    split: Channels
    share: int  # taps
    band: int  # numbers under a tap
    panel: int
    stretch: int
    tasks: int
    slabs: Slabs

    @property
    def scratch(self) -> int:
        return self.slabs.scratch


@lru_cache(maxsize=1024)
def cut(work: Work, room: Room) -> Cut:
    """The tasks of `outer`."""
    taps, o = len(work.p.taps), work.out_channels
    terms = work.p.run * work.in_channels
    split = filled(channels(work.dtype, o), terms)
    stretch = _stretch(work)
    slot = scratch_bytes(stretch, split.rows, work.p, work.in_channels * work.groups * work.item)
    sum_bytes, threads = work.weights * work.item, room.threads_for(work.multiply_adds)
    wanted, least = slabs_of(sum_bytes, work.pixels), least_slabs(work.pixels)
    parts = cut_slabs(work.pixels, wanted, least, PIXEL_BLOCK, slot, sum_bytes, threads, room)
    share = taps_of(taps, parts.number * work.groups)
    repeats = parts.sizes(work.pixels) * (-(-taps // share) * work.groups)

    def cost(tiles: int, vectors: int, pixels: int) -> float:
        sums: float = tiles * vectors * split.rows
        sums *= 1 if sums * split.lanes * work.item * share <= _CACHE else _BEYOND
        return (sums + _PIXEL) * share * pixels + _TASK

    tiles = -(-terms // split.rows)
    tiles, panel = shared_out(tiles, _LEAST_TILES, tiles, split, o, repeats, parts.threads, cost)
    band = tiles * split.rows
    return Cut(split, share, band, panel, stretch, len(repeats) * -(-terms // band) * -(-o // panel), parts)


def _stretch(work: Work) -> int:
    """Pixels that a tile goes along before the next one does.

    Many leave its sums in the cache, where all sums are not there anyway; unless other taps want the same cells, or
    pixels lie so far apart that they fall into few sets of the cache.
    """
    rows = (channels * work.groups * work.item for channels in (work.in_channels, work.out_channels))
    small = work.weights * work.item <= _SMALL
    return PIXEL_BLOCK if small or len(work.p.taps) > 1 or any(row % _APART == 0 for row in rows) else _STRETCH


def outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, groups: int, cut: Cut) -> None:
    """dw = Σ over pixels of x under each tap · dy; dy and dw in C order."""
    c, o, item, slabs = dw.shape[-2], dw.shape[-1] // groups, x.itemsize, cut.slabs
    with borrowed(cut.scratch) as scratch:
        parts = sums_at(scratch, dw, slabs)
        run(
            address("outer", "outer", dtype_name(x.dtype), *cut.split),
            cut.tasks,
            *walk(x, dy, size, p, x.shape[-1] * item),
            *Outer(
                parts,
                o * groups * item,
                p.run * c,
                o,
                groups,
                c * item,
                slabs.number,
                slabs.size,
                dw.nbytes,
                cut.share,
                cut.band,
                cut.panel,
                cut.stretch,
                scratch,
                slabs.slot,
            ),
            threads=slabs.threads,
        )
        add_up(parts, dw, slabs)


def sums_at(scratch: int, total: np.ndarray, slabs: Slabs) -> int:
    """Where the sums of slabs go, one after another: past the threads' scratch; a single one, where the total does."""
    return scratch + slabs.slots if slabs.number > 1 else place(total)


def add_up(parts: int, total: np.ndarray, slabs: Slabs) -> None:
    """Add the sums of slabs, in order."""
    if slabs.number > 1:
        run(
            address("outer", "reduce", dtype_name(total.dtype), machine().lanes(dtype_name(total.dtype))),
            -(-total.size // PIECE),
            *Reduce(place(total), parts, total.nbytes, slabs.number, total.size, PIECE),
            threads=threads_for(total.size * slabs.number),
        )
