"""Scratch memory that is used again: fresh pages cost as much to touch as a small layer takes to compute.

A block belongs to the call that borrowed it until it is given back; outputs never come from here.
"""

from __future__ import annotations

from types import TracebackType

import numpy as np

from xpconv.engines.numba.arrays import place
from xpconv.engines.numba.forks import fork_safe_lock
from xpconv.runtime import recorder

ALIGNMENT = 4096
_KEPT = 4  # blocks: one for each thread that is likely to be in an op at once

_free: list[np.ndarray] = []
_lock = fork_safe_lock()


class borrowed:  # noqa: N801 - a context manager, cheaper than a generator's
    """The address of at least so many bytes, aligned to a page, with whatever was left in them."""

    __slots__ = ("_block", "_nbytes")

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __enter__(self) -> int:
        noting = recorder()
        self._block = _take(self._nbytes) if noting is None else noting.scratch(self._nbytes + ALIGNMENT)
        return -(-place(self._block) // ALIGNMENT) * ALIGNMENT

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self._block
        del self._block
        if block.base is not None:  # a recording's, which takes it back by itself
            return
        with _lock:
            _free.append(block)
            if len(_free) > 1:
                _free.sort(key=len)
                del _free[:-_KEPT]


def _take(nbytes: int) -> np.ndarray:
    with _lock:
        for i, block in enumerate(_free):
            if len(block) >= nbytes + ALIGNMENT:
                return _free.pop(i)
        if _free:
            _free.pop()  # the largest, which has proved too small: a larger one takes its place
    return np.empty(nbytes + ALIGNMENT, dtype=np.uint8)


def clear() -> None:
    """Let all go that is not borrowed."""
    with _lock:
        _free.clear()


def zeros_address(nbytes: int) -> int:
    """The address of at least so many bytes that are always zero: what kernels read where a window hangs over an edge.

    It stays theirs: addresses may be remembered.
    """
    if nbytes > len(_zeros[-1]):
        with _lock:
            block = np.zeros(2 * nbytes, dtype=np.uint8)
            block.flags.writeable = False
            _zeros.append(block)  # the smaller ones stay
    return place(_zeros[-1])


_zeros = [np.zeros(2**16, dtype=np.uint8)]
