"""What a library can do beside arithmetic: work in an order of its own, record that work, move data meanwhile.

`train` speaks to a `Runtime` and to nothing below it. The one here is for libraries that compute when they are called;
that of CuPy lives with its engine and is loaded when it is first wanted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import get_ident
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from xpconv.backend import Array, Backend, backend_of, namespace

T = TypeVar("T")
Rows = slice | np.ndarray  # which rows of the data make a batch


class NotRecorded(Exception):  # noqa: N818 - an outcome that callers go on from, told in its message
    """Work that cannot be replayed; the message says why. Nothing of it was run."""


class Recording(Protocol, Generic[T]):
    """Work that was recorded once, to be run as often as wanted on the same memory."""

    result: T  # what the work returned; its arrays are written anew by each replay
    burden: str  # why it had better not be kept, or nothing

    def replay(self) -> None:
        """Queue the work once more."""


recorders: dict[int, Any] = {}  # who notes the work of a thread, where no stream does it; mostly empty, and then quick


def recorder() -> Any:
    """This thread's, while it records, else `None`."""
    return recorders.get(get_ident()) if recorders else None


def note(work: Callable[[], object]) -> None:
    """Have replays do what the library's own functions have just done, where it is recorded."""
    noting = recorder()
    if noting is not None:
        noting.note(work)


def also(work: Callable[[], object]) -> None:
    """Do what writes into arrays by the library's own functions; where it is recorded, replays do it, too."""
    work()
    note(work)


def made(make: Callable[[], Array]) -> Array:
    """An array that the library's own functions make; where that is recorded, replays write it anew."""
    y: Any = make()
    if recorder() is not None:
        y = np.asarray(y)  # arithmetic without axes gives numbers that cannot be written to
        note(lambda: y.__setitem__(..., make()))
    return y


def copied(x: Array) -> Array:
    """A copy that shares nothing with x; where it is recorded, replays copy x anew."""
    y: Any = namespace(x).asarray(x, copy=True, device=x.device)
    note(lambda: y.__setitem__(..., x))
    return y


class Runtime:
    """The runtime of libraries that compute when they are called: there is nothing to order, record or overlap."""

    recording = ""  # what a recording is called here
    records = False  # whether work can be recorded and replayed here
    eager = False  # whether work is done while it is recorded, and a replay of it is to be compared with the work once

    def working(self) -> AbstractContextManager[None]:
        """A block whose work is ordered among itself, after what was queued before it and before what follows it."""
        return nullcontext()

    def queue(self) -> int:
        """A number for the queue that work goes to now; what is kept from one to another would not be waited for."""
        return 0

    def facts(self) -> dict[str, str]:
        """The devices by name, and what drives them; nothing to tell of the host's CPU."""
        return {}

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Record what a function does; only within `working`, and once it ran as usual before.

        Nothing of it is run by that, unless the runtime is ``eager``.

        Raises
        ------
        NotRecorded
            If the work waits for the device, moves data from the host, or cannot be recorded for another reason.
        """
        raise NotRecorded("this library computes when it is called")

    def release(self) -> None:
        """Let go of memory that is kept for arrays to come."""

    def batches(self, data: Array, order: Sequence[Rows], place: Backend, dtype: str) -> Iterator[Array]:
        """The rows of ``data``, batch by batch, at a place and in a dtype; the next on its way while one is in use."""
        for rows in order:
            yield place.asarray(taken(data, rows), dtype)


def taken(data: Array, rows: Any) -> Array:
    """Some rows of an array of any library: of a slice, or of numbers on the host or beside the array."""
    if isinstance(rows, slice):
        return data[rows, ...]
    return namespace(data).take(data, backend_of(data).asarray(rows), axis=0)


_AT_ONCE = Runtime()


def runtime_of(place: Backend) -> Any:
    """The runtime of the device that a backend stands for."""
    if place.library == "cupy":
        return importlib.import_module("xpconv.engines.cupy.runtime").CudaRuntime(place.device)
    if place.library == "numpy":
        with suppress(ImportError):  # without compiled kernels there is nothing to note
            return importlib.import_module("xpconv.engines.numba.runtime").NumpyRuntime()
    return _AT_ONCE
