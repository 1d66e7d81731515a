"""Launches of one block of threads for each row."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array
from xpconv.engines.cupy.compiled import kernel, pointers
from xpconv.errors import dtype_name

_MOST_BLOCKS = 2**20


def launch_rows(module: str, name: str, like: Array, rows: int, n: int, *args: Any) -> None:
    """Launch a kernel whose blocks take a row of n each: a warp for short rows, up to eight for long ones."""
    if rows and n:
        threads = min(256, max(32, -(-n // 4) + 31 & -32))
        compiled = kernel(module, name, dtype_name(like.dtype), rows * n)
        compiled((min(rows, _MOST_BLOCKS),), (threads,), pointers(args))
