"""Memory of outputs that nobody holds any more, for the next ones: a fresh page costs as much to touch as to compute.

An output belongs to whoever holds it or a view of it. When the last of them lets go, its memory comes back here, where
an output of nearly the same size finds it, most likely still in a cache. What is kept is bounded, the sizes that were
not asked for longest go first.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.engines.numba.forks import fork_safe_lock

LEAST = 2**17  # bytes: smaller ones the C library keeps itself
_LINE, _PAGE = 64, 4096  # bytes
_MOST = 2**30  # bytes kept in all, and no more than this share of the machine's memory:
_SHARE = 8


class Reuse:
    """Blocks of memory that wait to be used again, by size."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: OrderedDict[int, list[np.ndarray]] = OrderedDict()  # what was asked for last is last
        self._lock = fork_safe_lock()
        self.nbytes = 0  # that wait

    def take(self, nbytes: int) -> tuple[Any, int]:
        """Memory with room for so many bytes after an offset, as an object with a buffer, which gives it back when it
        is dropped."""
        size = _rounded(nbytes + _PAGE)
        with self._lock:
            waiting = self._free.get(size)
            if waiting:
                self._free.move_to_end(size)
                self.nbytes -= size
            block = waiting.pop() if waiting else None
        if block is None:
            block = self._fresh(size)
        lent = _kind(size).from_buffer(block)  # type: ignore[attr-defined]
        lent.block, lent.home = block, self
        return lent, _offset(ctypes.addressof(lent))

    def _fresh(self, size: int) -> np.ndarray:
        try:
            return np.empty(size, np.uint8)
        except MemoryError:
            self.clear()
            return np.empty(size, np.uint8)

    def give(self, block: np.ndarray) -> None:
        """Keep a block for later, or let it go: where the lock is held, perhaps by the very call that this one
        interrupts, nothing is waited for."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            size = len(block)
            self._free.setdefault(size, []).append(block)
            self._free.move_to_end(size)
            self.nbytes += size
            while self.nbytes > self._most:
                oldest, blocks = next(iter(self._free.items()))
                if blocks:
                    blocks.pop()
                    self.nbytes -= oldest
                if not blocks:
                    del self._free[oldest]
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Let all go that waits."""
        with self._lock:
            self._free.clear()
            self.nbytes = 0


class _Lent:
    """What an output's memory is while someone holds it; `_kind` joins it with an array of bytes."""

    block: np.ndarray
    home: Reuse

    def __del__(self) -> None:
        self.home.give(self.block)


@functools.cache
def _kind(size: int) -> type:
    return type("Lent", (_Lent, ctypes.c_ubyte * size), {})


def _offset(start: int) -> int:
    """The bytes from a block's start to a cache line, another for each block.

    Large blocks all start at the same place of a page; arrays that are read and written together would then compete
    for the same lines of the cache.
    """
    line = (start // _PAGE * 29 + 21) % (_PAGE // _LINE)
    return (line * _LINE - start) % _PAGE


def _rounded(nbytes: int) -> int:
    """The next of eight sizes between two powers of two."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step


def _memory() -> int:
    """Bytes of memory that this process may use, as far as the system tells."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _MOST * _SHARE
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return physical


outputs = Reuse(min(_MOST, _memory() // _SHARE))
