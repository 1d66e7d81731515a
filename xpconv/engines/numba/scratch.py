"""Scratch memory that is used again: fresh pages cost as much to touch as a small layer takes to compute.

A block belongs to the call that borrowed it until it is given back; outputs never come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from xpconv.engines.numba.forks import fork_safe_lock

ALIGNMENT = 4096
_KEPT = 4  # blocks: one for each thread that is likely to be in an op at once

_free: list[np.ndarray] = []
_lock = fork_safe_lock()


@contextmanager
def borrowed(nbytes: int) -> Iterator[int]:
    """The address of at least so many bytes, aligned to a page, with whatever was left in them."""
    block = _take(nbytes)
    try:
        yield -(-int(block.__array_interface__["data"][0]) // ALIGNMENT) * ALIGNMENT
    finally:
        with _lock:
            _free.append(block)
            _free.sort(key=len)
            del _free[:-_KEPT]


def _take(nbytes: int) -> np.ndarray:
    with _lock:
        for i, block in enumerate(_free):
            if len(block) >= nbytes + ALIGNMENT:
                return _free.pop(i)
    return np.empty(nbytes + ALIGNMENT, dtype=np.uint8)


def zeros_address(nbytes: int) -> int:
    """The address of at least so many bytes that are always zero: what kernels read where a window hangs over the edge."""
    if nbytes > len(_zeros[-1]):
        with _lock:
            block = np.zeros(2 * nbytes, dtype=np.uint8)
            block.flags.writeable = False
            _zeros.append(block)  # the smaller ones stay: another thread may be reading them
    return int(_zeros[-1].__array_interface__["data"][0])


_zeros = [np.zeros(2**16, dtype=np.uint8)]
