"""What the launchers of pooling share."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from xpconv.engines.numba.arrays import unsupported
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import threads_for

_TASK = 100_000  # numbers that a task reads, where there are enough of them
_LONGEST = 2**18  # cells of an axis: plans are tables of them; codes count a plane in 32 bits
_LEAST = 4  # lanes of the shortest vectors


def unfit(x: Any) -> str | None:
    """Why kernels cannot pool such an array, or `None`; it is read by its metadata only."""
    sizes = x.shape[1:-1]
    if max(sizes) > _LONGEST or math.prod(sizes) >= 2**31:
        return f"pools at most {_LONGEST} cells along an axis and 2³¹ in all, not {sizes}"
    return unsupported(x)


@lru_cache(maxsize=1024)
def lanes_for(dtype: str, channels: int) -> tuple[int, bool]:
    """How many lanes the kernels' vectors have (up to four registers), and whether they divide the channels."""
    lanes = machine().lanes(dtype)
    for wide in (4 * lanes, lanes):
        if channels % wide == 0:
            return wide, True
    while lanes > _LEAST and channels <= lanes // 2:
        lanes //= 2
    return lanes, channels % lanes == 0


def row_tasks(rows: int, work: int) -> tuple[int, int, int]:
    """Rows of each task, how many tasks, and on how many threads; ``work`` is the numbers that a row reads."""
    threads = threads_for(rows * work)
    if threads == 1:
        return rows, 1, 1
    each = max(1, min(-(-rows // (4 * threads)), _TASK // max(work, 1)))
    return each, -(-rows // each), threads
