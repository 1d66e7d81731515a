"""Launches of a team of threads for each row: `kernels/teams.cuh`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from xpconv.backend import Array
from xpconv.engines.cupy.compiled import kernel, pointers
from xpconv.errors import dtype_name

_MOST_BLOCKS = 2**20
_THREADS = 256
_MOST_THREADS = 512  # as in the kernels' source: of a team
_FEW, _MANY = 256, 1024  # blocks of slabs: one to each processor of a large GPU at least, and several
_ROWS = 4, 64  # of a team in a slab: enough to be worth adding up, few enough for one sum
_OF_A_ROW = 3  # the most numbers that a kernel keeps of a row, however short it is
_WORTH = 32  # rows beside which a block's sums, two rows, are a small thing to write


def launch_rows(module: str, name: str, like: Array, rows: int, n: int, *args: Any, width: int) -> None:
    """Launch a kernel whose teams take a row of n each, in packs of ``width``: as many threads as hold the row."""
    if rows and n:
        block = _block(n, width)
        compiled = kernel(module, name, dtype_name(like.dtype), rows * max(n, _OF_A_ROW), width)
        compiled((min(-(-rows // block[1]), _MOST_BLOCKS),), block, pointers(args))


class RowSlabs(NamedTuple):
    """Rows shared out among blocks that hold whole ones and have sums of their columns, by the shape alone."""

    rows: int
    n: int
    width: int
    size: int  # rows of a slab

    @classmethod
    @functools.lru_cache(maxsize=4096)
    def of(cls, rows: int, n: int, width: int) -> RowSlabs | None:
        """Slabs of (rows, n), `None` where a row is longer than the threads of a team hold."""
        if n > _held(width) * width * _MOST_THREADS:
            return None
        _, down = _block(n, width)
        size = max(min(max(_ROWS[0] * down, _WORTH), -(-rows // _FEW)), -(-rows // _MANY), 1)
        return cls(rows, n, width, -(-min(size, _ROWS[1] * down) // down) * down)

    @property
    def slabs(self) -> int:
        return max(-(-self.rows // self.size), 1)

    def launch(self, module: str, name: str, like: Array, *args: Any) -> None:
        """Launch a kernel whose blocks take a slab each."""
        largest = max(self.rows * max(self.n, _OF_A_ROW), 2 * self.slabs * self.n)
        compiled = kernel(module, name, dtype_name(like.dtype), largest, self.width)
        compiled((self.slabs,), _block(self.n, self.width), pointers(args))


def _held(width: int) -> int:
    """Packs of a row that a thread holds: HELD in the kernels' source."""
    return 4 if width > 1 else 8


def _block(n: int, width: int) -> tuple[int, int]:
    """Threads of a team, and teams of a block.

    A power of two; short rows get up to eight threads, so that what a warp reads lies side by side.
    """
    packs = n // width
    least = min(packs, 8)
    team = min(1 << (max(-(-packs // _held(width)), least) - 1).bit_length(), _MOST_THREADS)
    return team, max(_THREADS // team, 1)
