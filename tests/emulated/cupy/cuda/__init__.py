"""Devices, streams, graphs and memory of the emulated CuPy. Every stream is the host's own order of events."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from cupy import _capture, emulation
from cupy.cuda import cublas, device, runtime
from cupy.cuda.device import Device, current_device_id, get_cublas_handle, synchronise
from cupy.cuda.memory import (
    MemoryPool,
    PinnedMemoryPool,
    alloc,
    alloc_pinned_memory,
    get_default_memory_pool,
    get_default_pinned_memory_pool,
    using_allocator,
)

__all__ = [
    *("Device", "Event", "ExternalStream", "Graph", "MemoryPool", "PinnedMemoryPool", "Stream", "alloc", "cublas"),
    *("alloc_pinned_memory", "current_device_id", "device", "get_current_stream", "get_cublas_handle", "is_available"),
    *("get_default_memory_pool", "get_default_pinned_memory_pool", "get_elapsed_time", "runtime", "using_allocator"),
]


class _Current(threading.local):
    def __init__(self) -> None:
        self.streams: list[Any] = []


_current = _Current()
_numbers = itertools.count(1)


def is_available() -> bool:
    return True


class _BaseStream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id

    def __enter__(self) -> _BaseStream:
        _current.streams.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        _current.streams.pop()

    def use(self) -> _BaseStream:
        _current.streams[-1:] = [self]
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)

    def synchronize(self) -> None:
        synchronise("Stream.synchronize")

    done = True

    def record(self, event: Any = None) -> Any:
        return Event() if event is None else event

    def wait_event(self, event: Any) -> None:
        pass  # there is one order of events

    def begin_capture(self, mode: Any = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the default stream cannot be captured")
        if get_current_stream() != self:
            raise RuntimeError("the emulated CuPy captures the current stream only")
        _capture.begin()

    def end_capture(self) -> Graph:
        graph = Graph.__new__(Graph)
        graph._steps = _capture.end()
        return graph

    def is_capturing(self) -> bool:
        return _capture.capturing() and get_current_stream() == self


class Stream(_BaseStream):
    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        super().__init__(0 if null else next(_numbers), current_device_id())
        self.null = null

    null: Any


Stream.null = Stream(null=True)


class ExternalStream(_BaseStream):
    def __init__(self, ptr: int, device_id: int = -1) -> None:
        super().__init__(ptr, device_id)


class Event:
    """A point in the one order of events: always reached."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.ptr, self.done = next(_numbers), True

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        synchronise("Event.synchronize")


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    raise RuntimeError("the emulated CuPy measures no times")


class Graph:
    """What a stream recorded; each launch runs it."""

    _steps: list[_capture.Step]

    def __init__(self) -> None:
        raise NotImplementedError("a graph is made by a stream's capture")

    def launch(self, stream: Any = None) -> None:
        emulation.counts["graph launches"] += 1
        for step in self._steps:
            step()

    def upload(self, stream: Any = None) -> None:
        pass


def get_current_stream(device_id: int = -1) -> _BaseStream:
    return _current.streams[-1] if _current.streams else Stream.null
