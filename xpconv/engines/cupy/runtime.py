"""The CUDA Runtime: a stream of one's own, CUDA graphs, and copies from pinned memory beside the computation.

Work is done on a side stream, since the default stream cannot be captured. Memory of CuPy's pool belongs to the stream
that it was allocated on; events order the side stream after what was queued before a block, and what follows after it.

What a graph allocates comes from a pool of its own, which lives as long as the graph: nobody else is given memory that
a replay will write to. Anything that would make a graph depend on the host (a copy from it or to it, a wait) is refused
by CuPy while a stream is captured, and becomes the reason of a `NotRecorded`.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import cupy
import numpy as np

from xpconv.backend import Array, Backend
from xpconv.driver import cuda
from xpconv.runtime import NotRecorded, Recording, Rows, Runtime

T = TypeVar("T")


class CudaRuntime(Runtime):
    """The runtime of one CUDA device; `None` is the device that is current."""

    recording = "CUDA graph"
    records = True

    def __init__(self, device: Any = None) -> None:
        self.device = cupy.cuda.Device() if device is None else device

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on the side stream of this thread and device, in order with the stream that was current."""
        with self.device:
            outer, stream = cupy.cuda.get_current_stream(), _stream("work", self.device.id)
            if outer == stream:
                yield
                return
            stream.wait_event(outer.record())
            try:
                with stream:
                    yield
            finally:
                outer.wait_event(stream.record())

    def queue(self) -> int:
        """The address of the current stream."""
        return int(cupy.cuda.get_current_stream(self.device.id).ptr)

    def busy(self) -> bool:
        """Whether the current stream is captured."""
        return bool(cupy.cuda.get_current_stream().is_capturing())

    def facts(self) -> dict[str, str]:
        """The devices, and the CUDA behind them."""
        runtime, found = cupy.cuda.runtime, {}
        for i in range(runtime.getDeviceCount()):
            about = runtime.getDeviceProperties(i)
            with cupy.cuda.Device(i):
                free, total = runtime.memGetInfo()
            capability = f"compute capability {about['major']}.{about['minor']}"
            memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            found[f"cupy:{i}"] = f"{about['name'].decode()}, {capability}, {memory}"
        versions = f"driver {cuda(runtime.driverGetVersion())}, runtime {cuda(runtime.runtimeGetVersion())}"
        return {**found, "CUDA": versions}

    def release(self) -> None:
        """Give the blocks of CuPy's pool that nobody uses back to the driver."""
        cupy.get_default_memory_pool().free_all_blocks()

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Capture the work into a CUDA graph."""
        stream, pool = cupy.cuda.get_current_stream(), cupy.cuda.MemoryPool()
        self.release()  # what the runs before it took, the graph will need
        stream.begin_capture()
        try:
            with cupy.cuda.using_allocator(pool.malloc):
                result = work()
        except BaseException as error:
            with suppress(Exception):  # the capture is invalid by now
                stream.end_capture()
            _forget_locals(error)
            pool.free_all_blocks()
            _free_the_late()
            if isinstance(error, Exception):
                raise NotRecorded(_first_line(error)) from error
            raise
        try:
            return _Graph(result, stream.end_capture(), pool)
        except Exception as error:  # something in it was not permitted, and is told only now
            del result
            pool.free_all_blocks()
            raise NotRecorded(_first_line(error)) from error
        finally:
            _free_the_late()

    def batches(self, data: Array, order: Sequence[Rows], place: Backend, dtype: str) -> Iterator[Array]:
        """Gather rows of NumPy data into pinned memory and copy them on a second stream, one batch ahead."""
        if type(data) is not np.ndarray or not data.size or not data.dtype.isnative:
            yield from super().batches(data, order, place, dtype)
            return
        copying, both, ahead = _stream("copy", self.device.id), (_Pinned(), _Pinned()), None
        turns = itertools.cycle(both)
        try:
            for rows in order:
                following = next(turns).sent(data, rows, copying)
                if ahead is not None:
                    yield _arrived(*ahead, place, dtype)
                ahead = following
            if ahead is not None:
                yield _arrived(*ahead, place, dtype)
        finally:  # also where the loop is left early: neither end of a copy under way may be given to others
            for pinned in both:
                pinned.wait()


class _Graph(Generic[T]):
    """A graph with the memory that it works in."""

    burden = ""

    def __init__(self, result: T, graph: Any, pool: Any) -> None:
        self.result, self._graph, self._pool, self._device = result, graph, pool, cupy.cuda.Device()
        self._stream: Any = None

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._stream = cupy.cuda.get_current_stream()
        self._graph.launch(self._stream)

    def __del__(self) -> None:
        """Free the memory that it worked in; where its stream records another graph, once that is done.

        A wait would spoil that recording, and the collector of garbage comes when it likes. It happens once for a
        graph, when training ends or the network has changed.
        """
        with suppress(Exception):  # what it takes may have gone before, at exit
            if self._stream is not None and _records(self._stream):
                _late.append(self)
            else:
                self._free()

    def _free(self) -> None:
        """Wait for the last replay, and let memory go.

        The driver keeps a graph until it has run, but not its memory: `cudaFree` may wait for work under way, and need
        not. Nor does a pool of CuPy's free by itself what it has to give.
        """
        with self._device:
            if self._stream is not None:
                self._stream.synchronize()
            del self.result, self._graph
            self._pool.free_all_blocks()


_late: list[_Graph[Any]] = []  # graphs that nobody has any more, whose streams were recording when they went


def _free_the_late() -> None:
    """Free graphs that could not be freed when they went, those apart whose streams record still."""
    waiting = [_late.pop() for _ in range(len(_late))]
    for graph in waiting:
        graph.__del__()


def _records(stream: Any) -> bool:
    """Whether a stream records, be it that the recording is spoilt already, of which CuPy raises."""
    try:
        return bool(stream.is_capturing())
    except RuntimeError:
        return True


class _Pinned:
    """Page-locked memory of the host, from which the device copies by itself."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._room = 0
        self._copied: Any = None

    def sent(self, data: np.ndarray, rows: Rows, copying: Any) -> tuple[Array, Any]:
        """Gather rows and queue their copy: the array that they will be in, and the event that tells of it.

        The array is allocated on the computing stream, where it will be used and freed; the copying stream waits until
        that stream is done with what the memory held before.
        """
        computing = cupy.cuda.get_current_stream()
        shape = (len(range(*rows.indices(len(data)))) if isinstance(rows, slice) else len(rows), *data.shape[1:])
        host = self._buffer(shape, data.dtype)
        if isinstance(rows, slice):
            host[...] = data[rows]
        else:
            np.take(data, rows, axis=0, out=host, mode="clip")  # with "raise" NumPy would gather twice
        made = cupy.empty(shape, data.dtype)
        copying.wait_event(computing.record())
        made.set(host, stream=copying)
        self._copied = copying.record()
        return made, self._copied

    def wait(self) -> None:
        """Wait until the last copy is over."""
        if self._copied is not None:
            self._copied.synchronize()

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Room for an array, once the copy of what it held is over: two batches ago, so that this seldom waits."""
        self.wait()
        count = int(np.prod(shape))
        if count * dtype.itemsize > self._room:
            self._room = count * dtype.itemsize
            self._memory = cupy.cuda.alloc_pinned_memory(self._room)
        return np.frombuffer(self._memory, dtype, count).reshape(shape)


def _arrived(made: Array, copied: Any, place: Backend, dtype: str) -> Array:
    """The array, for use on the current stream, cast there."""
    cupy.cuda.get_current_stream().wait_event(copied)
    return place.asarray(made, dtype)


class _Streams(threading.local):
    def __init__(self) -> None:
        self.made: dict[tuple[str, int], Any] = {}


_streams = _Streams()


def _stream(purpose: str, device: int) -> Any:
    """This thread's stream for a purpose: one for good, since memory that was freed is used again on its own stream."""
    if (purpose, device) not in _streams.made:
        _streams.made[purpose, device] = cupy.cuda.Stream(non_blocking=True)
    return _streams.made[purpose, device]


def _forget_locals(error: BaseException) -> None:
    """Let go of what the calls that an error has ended were working on, and those of errors that led to it."""
    chained: BaseException | None = error
    met: list[BaseException] = []  # an error may be its own cause
    while chained is not None and chained not in met:
        met.append(chained)
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
