"""How work is cut: output channels into register tiles, pixels into tasks."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from xpconv.engines.numba.machine import machine

PIXEL_BLOCK = 128  # pixels of a sum in registers, when the sum is over pixels (`kernels.outer`)
_TASKS = 16  # enough for a few threads to come out even, and the same for any number of them


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
    vectors, left = (widest, count % (widest * lanes)) if count >= widest * lanes else (0, count)
    tail = -(-left // lanes)
    return Channels(cpu.tile(dtype, vectors or tail).pixels, vectors, tail, lanes, count % lanes != 0)


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

    Small sums stay in the cache, and one walk over x and dy serves all of them; of large ones there is only one. No slab has
    so many blocks of pixels that their running sum would drift (2^19 pixels: parity/bounds.py has the scale).
    """
    most = 8 if nbytes <= 2**17 else 4 if nbytes <= 2**19 else 2 if nbytes <= 3 * 2**19 else 1
    return max(min(most, pixels // (2 * PIXEL_BLOCK)), -(-pixels // 2**19), 1)
