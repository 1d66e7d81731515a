"""Launches of a team of threads for each row: `kernels/teams.cuh`."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array
from xpconv.engines.cupy.compiled import kernel, pointers
from xpconv.errors import dtype_name

_MOST_BLOCKS = 2**20
_THREADS = 256
_MOST_THREADS = 512  # as in the kernels' source: of a team


def launch_rows(module: str, name: str, like: Array, rows: int, n: int, *args: Any, width: int) -> None:
    """Launch a kernel whose teams take a row of n each, in packs of ``width``: as many threads as hold the row."""
    if rows and n:
        team = _team(n // width, 4 if width > 1 else 8)  # as HELD in the kernels' source
        down = max(_THREADS // team, 1)
        compiled = kernel(module, name, dtype_name(like.dtype), rows * n, width)
        compiled((min(-(-rows // down), _MOST_BLOCKS),), (team, down), pointers(args))


def _team(packs: int, held: int) -> int:
    """A power of two; short rows get up to eight threads, so that what a warp reads lies side by side."""
    least = min(packs, 8)
    return min(1 << (max(-(-packs // held), least) - 1).bit_length(), _MOST_THREADS)
