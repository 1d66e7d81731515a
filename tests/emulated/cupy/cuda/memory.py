"""Memory pools and pinned memory: host memory all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cupy import _capture, emulation


class MemoryPointer:
    def __init__(self, memory: np.ndarray) -> None:
        self.mem, self.ptr = memory, memory.ctypes.data


def alloc(size: int) -> MemoryPointer:
    return MemoryPointer(np.full(max(size, 1), 0xFF, dtype=np.uint8))


def alloc_pinned_memory(size: int) -> Any:
    """Page-locked memory as a buffer, which is what callers take it for: np.frombuffer(memory, dtype, count)."""
    return memoryview(np.zeros(size, dtype=np.uint8))


class _Local(threading.local):
    allocator: Any = None


_local = _Local()


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """Within the block memory comes from an allocator of one's own."""
    before, _local.allocator = _local.allocator, allocator
    try:
        yield
    finally:
        _local.allocator = before


def account() -> None:
    """Count memory of a captured graph that others may be given too, since it comes from the pool of everybody."""
    if _capture.capturing() and _local.allocator is None:
        emulation.counts["captured memory of the default pool"] += 1


class MemoryPool:
    """Says nothing of what is used: NumPy has the memory."""

    def malloc(self, size: int) -> MemoryPointer:
        return alloc(size)

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


class PinnedMemoryPool(MemoryPool):
    pass


_POOL, _PINNED = MemoryPool(), PinnedMemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _POOL


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    return _PINNED
