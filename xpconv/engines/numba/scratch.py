"""Scratch memory that is used again: fresh pages cost as much to touch as a small layer takes to compute.

A block belongs to the call that borrowed it until it is given back; outputs never come from here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

ALIGNMENT = 4096
_KEPT = 4  # blocks: one for each thread that is likely to be in an op at once

_free: list[np.ndarray] = []
_lock = threading.Lock()


@contextmanager
def borrowed(nbytes: int) -> Iterator[int]:
    """The address of at least so many bytes, aligned to a page, with whatever was left in them."""
    block = _take(nbytes)
    try:
        yield -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT
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


def zeros_address() -> int:
    """The address of 64 KiB that are always zero: what kernels read where a window hangs over the edge."""
    return _ZEROS


_zeros_block = np.zeros(2**16 + ALIGNMENT, dtype=np.uint8)
_zeros_block.flags.writeable = False
_ZEROS = -(-_zeros_block.ctypes.data // ALIGNMENT) * ALIGNMENT
