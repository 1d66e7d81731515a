"""Devices, streams, graphs and memory of the emulated CuPy. Every stream is the host's own order of events."""

from __future__ import annotations

import itertools
import threading
import warnings
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
    """Each device has a current stream of its own."""

    def __init__(self) -> None:
        self.streams: list[list[Any]] = [[Stream.null] for _ in range(emulation.DEVICES)]
        self.entered: list[int] = []  # on which device each block that is open was entered


_numbers = itertools.count(1)


def is_available() -> bool:
    return True


class _BaseStream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id

    def __enter__(self) -> _BaseStream:
        here = self._on_current_device()
        _current.streams[here].append(self)
        _current.entered.append(here)
        return self

    def __exit__(self, *_: Any) -> None:
        _current.streams[_current.entered.pop()].pop()

    def use(self) -> _BaseStream:
        _current.streams[self._on_current_device()][-1:] = [self]
        return self

    def _on_current_device(self) -> int:
        current = current_device_id()
        if self.device_id not in (-1, current):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device "
                f"({current})"
            )
        return current

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
        captures = _capture.capturing() and get_current_stream() == self
        if captures and _capture.spoilt():
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return captures


class Stream(_BaseStream):
    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        super().__init__(0 if null else next(_numbers), -1 if null else current_device_id())
        self.null = null

    null: Any

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        version, ptr = obj.__cuda_stream__()
        if version != 0:
            raise TypeError("only version 0 is supported")
        made = cls.__new__(cls)
        _BaseStream.__init__(made, ptr, -1)
        return made


Stream.null = Stream(null=True)
_current = _Current()


class ExternalStream(_BaseStream):
    def __init__(self, ptr: int, device_id: int = -1) -> None:
        warnings.warn("ExternalStream is deprecated. Use Stream.from_external() instead", DeprecationWarning, 2)
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
    return _current.streams[current_device_id() if device_id == -1 else device_id][-1]
