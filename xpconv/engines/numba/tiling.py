"""How work is cut: output channels into register tiles, pixels into tasks, scratch into what the settings allow.

Each launcher has a function of a `Work` and the `Room` for it that answers with a cut, from which the launcher runs and
`choice` reckons and tells.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from xpconv.engines.numba.fields import PIXEL_BLOCK
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT
from xpconv.engines.numba.team import ENOUGH, num_threads
from xpconv.settings import current

_LOADS = 2  # what a tile's loads cost, in its multiply-adds
_TASKS = 16  # enough for a few threads to come out even, and the same for any number of them
_MANY, _TRIES = 64, 8  # tasks that come out even however they are cut; and numbers of pieces that are looked at


class Work(NamedTuple):
    """A pass over some images: all that the best way to do it depends on, besides the room there is."""

    dtype: str
    images: int
    p: Pass
    in_channels: int  # of a group
    out_channels: int  # of a group
    groups: int
    turned: bool = False  # whether weights lie the other way round, as for an input gradient

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return 8 if self.dtype == "float64" else 4

    @property
    def pixels(self) -> int:
        return self.images * self.p.pixels

    @property
    def weights(self) -> int:
        """How many there are."""
        return self.p.cells * self.in_channels * self.out_channels * self.groups

    @property
    def multiply_adds(self) -> int:
        return self.pixels * self.weights


class Room(NamedTuple):
    """What the settings in force allow."""

    threads: int
    scratch: int  # bytes
    fast: bool

    def without(self, nbytes: int) -> Room:
        """What is left when so many bytes are taken."""
        return self._replace(scratch=self.scratch - nbytes)

    def threads_for(self, work: float) -> int:
        """How many threads so much work is worth (`team.threads_for`)."""
        return self.threads if work > ENOUGH else 1

    def seats(self, threads: int, slot: int) -> int:
        """How many of the threads find scratch of so many bytes each; one always does."""
        return max(1, min(threads, self.scratch // slot))

    def fitted(self, most: int, threads: int, slot: Callable[[int], int]) -> tuple[int, int]:
        """Pieces of a task, at most so many, and threads, whose scratch fits in all; the least is one and one."""
        pieces = most
        while pieces > 1 and slot(pieces) * threads > self.scratch:
            pieces //= 2
        return pieces, self.seats(threads, slot(pieces))


def room() -> Room:
    """What the settings in force allow."""
    settings = current()
    return Room(num_threads(), settings.workspace_limit, settings.precision == "fast")


class Slabs(NamedTuple):
    """Parts of a sum over pixels, each added up by itself; their number does not depend on the threads."""

    number: int
    size: int  # pixels, or rows or tiles of them, of each
    sum_bytes: int  # of the sum of each
    slot: int  # bytes of scratch of a thread
    threads: int

    def sizes(self, pieces: int) -> list[int]:
        """How many of so many pieces are in each."""
        return [min(self.size, pieces - start) for start in range(0, pieces, self.size)] or [0]

    @property
    def slots(self) -> int:
        """Bytes of scratch of all threads, in whole pages."""
        return -(-self.slot * self.threads // ALIGNMENT) * ALIGNMENT

    @property
    def scratch(self) -> int:
        """Bytes in all; a single sum goes where the result does."""
        return self.slots + (self.sum_bytes * self.number if self.number > 1 else 0)


def cut_slabs(
    pieces: int, wanted: int, least: int, block: int, slot: int, sum_bytes: int, threads: int, space: Room
) -> Slabs:
    """So many pieces cut into at most as many slabs as wanted, of whole blocks, that there is scratch for."""
    affordable = (space.scratch - slot) // sum_bytes if sum_bytes else wanted
    count = max(min(wanted, affordable), least, 1)
    size = max(-(-pieces // (count * block)), 1) * block
    count = max(-(-pieces // size), 1)
    seats = space.without(sum_bytes * count if count > 1 else 0).seats(threads, slot)
    return Slabs(count, size, sum_bytes, slot, seats)


class Channels(NamedTuple):
    """Output channels in blocks of some vectors and a tail; the constants that matrix kernels are compiled for."""

    rows: int  # of a tile
    vectors: int  # of a block; 0: there is none, all is in the tail
    tail: int
    lanes: int
    partial: bool  # whether the tail's last vector is

    @property
    def block(self) -> int:
        """The least channels that a task may have."""
        return max(self.vectors, self.tail) * self.lanes


@lru_cache(maxsize=1024)
def channels(dtype: str, count: int, widest: int | None = None) -> Channels:
    """The best tiles for so many output channels, in blocks of at most ``widest`` vectors."""
    cpu = machine()
    lanes, widest = cpu.lanes(dtype), widest or cpu.widest
    if cpu.halves and count < 4 * lanes and 0 < count % lanes <= lanes // 2:  # half of the last vector would be empty
        lanes //= 2
    vectors, left = (widest, count % (widest * lanes)) if count >= widest * lanes else (0, count)
    tail = -(-left // lanes)
    return Channels(cpu.tile(dtype, vectors or tail).pixels, vectors, tail, lanes, count % lanes != 0)


def filled(split: Channels, rows: int) -> Channels:
    """With the rows of a tile of outer products that so many rows leave least of empty: its rows need no addresses."""
    vectors = split.vectors or split.tail
    most = machine().accumulators // vectors
    sizes = [size for size in (split.rows, 16, 8) if size <= min(most, rows)] or [rows]
    return split._replace(rows=min(sizes, key=lambda size: -(-rows // size) * (size * vectors + _LOADS)))


def shared_out(
    tiles: int,
    least: int,
    most: int,
    split: Channels,
    count: int,
    repeats: list[int],
    threads: int,
    cost: Callable[[int, int, int], float],
) -> tuple[int, int]:
    """Tiles and output channels of a task, so that threads, which take tasks as they come, are done soonest.

    A task has so many tiles at least and at most, and is done once for each of ``repeats``; ``cost`` tells what some
    tiles by some vectors take for one of them.
    """
    blocks, fewest = -(-count // split.block), max(-(-tiles // most), 1)
    best, soonest = (0, 0), float("inf")
    for pieces in range(fewest, max(min(fewest + _TRIES, tiles // least), fewest) + 1):
        piece = max(-(-tiles // pieces), 1)
        sizes = _cut(tiles, piece)
        for parts in range(1, min(blocks, _TASKS) + 1):
            panel = -(-blocks // parts) * split.block
            widths = [-(-width // split.lanes) for width in _cut(count, panel)]
            if len(sizes) * len(widths) * len(repeats) > _MANY:
                best = best if best[0] else (piece, panel)
                break
            end = _end((cost(size, width, of) for width in widths for size in sizes for of in repeats), threads)
            if end < soonest:
                best, soonest = (piece, panel), end
    return best


def _cut(total: int, size: int) -> list[int]:
    """A number in pieces of a size, the last perhaps smaller."""
    return [min(size, total - start) for start in range(0, total, size)]


def _end(costs: Iterable[float], threads: int) -> float:
    """When so many threads have done all tasks, each taking the next one when it is free."""
    busy = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def panel_of(split: Channels, count: int, tasks: int) -> int:
    """Output channels of a task, where there are so many tasks already: all, or fewer if there are few."""
    blocks = -(-count // split.block)
    parts = min(-(-_TASKS // max(tasks, 1)), blocks)
    return -(-blocks // parts) * split.block if parts > 1 else count


def taps_of(taps: int, tasks: int) -> int:
    """Taps of a task, where there are so many tasks already."""
    return taps if tasks >= _TASKS else max(1, taps * tasks // _TASKS)


def slabs_of(nbytes: int, pixels: int) -> int:
    """Parts that the pixels of a weight gradient are cut into, each with a sum of its own of so many bytes.

    Small sums stay in the cache, and one walk over x and dy serves all of them; of large ones there is only one.
    """
    most = 8 if nbytes <= 2**17 else 4 if nbytes <= 2**19 else 2 if nbytes <= 3 * 2**19 else 1
    return max(min(most, pixels // (2 * PIXEL_BLOCK)), least_slabs(pixels))


def least_slabs(pixels: int) -> int:
    """No slab has so many blocks of pixels that their running sum would drift (parity/bounds.py has the scale)."""
    return max(-(-pixels // 2**19), 1)
