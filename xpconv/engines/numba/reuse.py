"""Memory of outputs that nobody holds any more, for the next ones: a fresh page costs as much to touch as to compute.

An output belongs to whoever holds it or a view of it. When the last of them lets go, its memory comes back here, where
an output of nearly the same size finds it, most likely still in a cache. What is kept is bounded, the sizes that were
not asked for longest go first.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.engines.numba.fields import CACHE_LINE
from xpconv.engines.numba.forks import fork_safe_lock

LEAST = 2**17  # bytes: smaller ones the C library keeps itself
_MAPPED = 2**20  # bytes of blocks that are pages of their own; a process may have some 2¹⁶ of such
_PAGE = 4096  # bytes
_MOST = 2**30  # bytes kept in all, and no more than this share of the machine's memory:
_SHARE = 8


class Reuse:
    """Blocks of memory that wait to be used again, by size."""

    def __init__(self, most: int, lock: threading.RLock) -> None:
        """Keep at most so many bytes; a store for good takes a lock that is safe at forks, which is never let go."""
        self._most = most
        self._free: OrderedDict[int, list[np.ndarray]] = OrderedDict()  # what was asked for last is last
        self._lock = lock
        self._busy = False  # the lock is held, perhaps by this thread, which may take it twice
        self.nbytes = 0  # that wait
        self.taken = 0  # bytes of all blocks that were ever made

    def take(self, nbytes: int) -> tuple[Any, int]:
        """Memory with room for so many bytes after an offset, as an object with a buffer, which gives it back when it
        is dropped."""
        size = _rounded(nbytes + _PAGE)
        block = self._waiting(size)
        if block is None:
            block = self._fresh(size)
        lent = _kind(size).from_buffer(block)  # type: ignore[attr-defined]
        lent.home, lent.block = self, block
        return lent, _offset(ctypes.addressof(lent))

    def _waiting(self, size: int) -> np.ndarray | None:
        with self._alone() as alone:
            blocks = self._free.get(size) if alone else None
            if not blocks:
                return None
            self._free.move_to_end(size)
            self.nbytes -= size
            return blocks.pop()

    def _fresh(self, size: int) -> np.ndarray:
        self.taken += size
        try:
            return _pages(size) if size >= _MAPPED else np.empty(size, np.uint8)
        except (MemoryError, OSError):
            self.clear()
            return np.empty(size, np.uint8)

    def give(self, block: np.ndarray) -> None:
        """Keep a block for later, or let it go where that would have to wait."""
        with self._alone(wait=False) as alone:
            if not alone:
                return
            size = len(block)
            self._free.setdefault(size, []).append(block)
            self._free.move_to_end(size)
            self.nbytes += size
            while self.nbytes > self._most and self._free:
                oldest, blocks = next(iter(self._free.items()))
                if blocks:
                    blocks.pop()
                    self.nbytes -= oldest
                if not blocks:
                    del self._free[oldest]

    def clear(self) -> None:
        """Let all go that waits."""
        with self._alone() as alone:
            if alone:
                self._free.clear()
                self.nbytes = 0

    def _alone(self, wait: bool = True) -> _Alone:
        return _Alone(self, wait)


class _Alone:
    """Holds a store's lock; answers whether nobody else is in it, this very thread included.

    An output may be dropped at any moment, by the collector or a signal's handler, while its thread is in the store.
    """

    __slots__ = ("_first", "_held", "_store", "_wait")

    def __init__(self, store: Reuse, wait: bool) -> None:
        self._store, self._wait = store, wait

    def __enter__(self) -> bool:
        self._held = self._store._lock.acquire(blocking=self._wait)
        self._first = self._held and not self._store._busy
        if self._first:
            self._store._busy = True
        return self._first

    def __exit__(self, *error: object) -> None:
        if self._first:
            self._store._busy = False
        if self._held:
            self._store._lock.release()


class _Lent:
    """What an output's memory is while someone holds it; `_kind` joins it with an array of bytes."""

    home: Reuse
    block: np.ndarray | None = None  # as long as it is being made

    def __del__(self) -> None:
        if self.block is not None:
            self.home.give(self.block)


def _pages(size: int) -> np.ndarray:
    """Memory that goes back to the system when it is dropped, where the C library would keep it for the process."""
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # as NumPy asks for its own
        with suppress(OSError):  # of a system that has none
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


@functools.cache
def _kind(size: int) -> type:
    return type("Lent", (_Lent, ctypes.c_ubyte * size), {})


def _offset(start: int) -> int:
    """The bytes from a block's start to a cache line, another for each block.

    Large blocks all start at the same place of a page; arrays that are read and written together would then compete
    for the same lines of the cache.
    """
    line = (start // _PAGE * 29 + 21) % (_PAGE // CACHE_LINE)
    return (line * CACHE_LINE - start) % _PAGE


def _rounded(nbytes: int) -> int:
    """The next of eight sizes between two powers of two."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step


def memory() -> int:
    """Bytes of memory that this process may use, as far as the system tells."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _MOST * _SHARE
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return physical


def share() -> int:
    """Bytes that may be kept for later, for outputs or for a recording."""
    return memory() // _SHARE


outputs = Reuse(max(0, min(_MOST, share())), fork_safe_lock())
