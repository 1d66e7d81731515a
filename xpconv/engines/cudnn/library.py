"""cuDNN and its frontend, as far as this engine touches them: versions, handles, streams, and the one call that runs.

Everything that needs a device to be there is in this file, so that a test without one replaces `place`, `handle` and
`execute` and runs all the rest.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any, TypeVar

import cudnn
import cupy

from xpconv.errors import EngineError, message

T = TypeVar("T")
INSTALL = "pip install 'xpconv[cudnn13]'"


def _checked(name: str, version: str, oldest: tuple[int, int]) -> str:
    """The version, if it can be used."""
    if tuple(map(int, version.split(".")[:2])) < oldest:
        raise ImportError(f"it needs {name} {oldest[0]}.{oldest[1]} or later, not {version}: {INSTALL}")
    return version


def _library_version() -> str:
    """The version of the library that the frontend found."""
    try:
        number = cudnn.backend_version()
    except RuntimeError as error:
        raise ImportError(f"cuDNN itself is not found ({error}): {INSTALL}") from error
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


FRONTEND_VERSION = _checked("nvidia-cudnn-frontend", metadata.version("nvidia-cudnn-frontend"), (1, 22))
VERSION = _checked("cuDNN", _library_version(), (9, 19))

# How a graph is refused: outright, for impossible sizes, for operations that an earlier frontend calls otherwise.
Refusal = (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError, TypeError)
_SHORT = re.compile(r"ALLOC(ATION)?_FAILED|out.?of.?memory", re.IGNORECASE)  # as cuDNN and CUDA call it


def short_of_memory(error: BaseException) -> bool:
    """Whether something failed for want of memory, which may pass: nobody is to remember it."""
    return isinstance(error, MemoryError) or _SHORT.search(str(error)) is not None


def with_room(work: Callable[[], T]) -> T:
    """What some work gives; where memory is short, once more without what CuPy's pool keeps and nobody uses.

    The library allocates by itself, and CuPy's pool gives nothing back before CuPy asks for more.
    """
    try:
        return work()
    except (MemoryError, *Refusal) as error:
        if not short_of_memory(error):
            raise
    cupy.get_default_memory_pool().free_all_blocks()
    return work()


class _Handles(dict[int, list[Any]]):
    """A thread's handles by device: each with the stream that it is on, and its number."""

    def __del__(self) -> None:
        for device, entry in self.items():  # the thread has ended, and leaves them to the next one
            _free.setdefault(device, []).append(entry)


class _Local(threading.local):
    def __init__(self) -> None:
        self.handles = _Handles()


_free: dict[int, list[list[Any]]] = {}  # by device, of threads that have ended
_failed: dict[int, tuple[float, str]] = {}  # by device: when a handle could not be made, and why
_PATIENCE = 1.0  # seconds until another is tried: a try may take as long as many convolutions
_local = _Local()


def handle(device: int) -> int:
    """This thread's handle for a device, the current one, set to the current stream."""
    entry = _local.handles.get(device)
    if entry is None:
        entry = _local.handles[device] = _new_handle(device)
    current = stream()
    if entry[1] != current:
        cudnn.set_stream(handle=entry[0], stream=current)
        entry[1] = current
    return entry[2]


def prepare(device: int) -> None:
    """See that this thread has a handle for a device, so that a plan which is there can be run by it."""
    if device not in _local.handles:
        with cupy.cuda.Device(device):
            handle(device)


def stream() -> int:
    """The address of the current stream."""
    return int(cupy.cuda.get_current_stream().ptr)


def _new_handle(device: int) -> list[Any]:
    """One that is free, or a new one."""
    with suppress(KeyError, IndexError):  # another thread may come in between a look and a take
        return _free[device].pop()
    outside_capture("make a handle")
    since, reason = _failed.get(device, (-_PATIENCE, ""))
    if time.monotonic() - since < _PATIENCE:
        raise RuntimeError(reason)
    try:
        made = with_room(_created)
    except RuntimeError as error:
        _failed[device] = time.monotonic(), str(error)
        raise
    return [made, None, getattr(made, "backend_handle", made)]  # a number itself in earlier frontends


def _created() -> Any:
    """A handle, or all that the library says of why there is none."""
    try:
        return cudnn.create_handle()
    except RuntimeError as error:
        raise RuntimeError(f"{error} {cudnn.get_last_error_string()}".strip()) from error


def place(device: int) -> dict[str, Any]:
    """What tells a graph which device its plans are for."""
    handle(device)
    return {"handle": _local.handles[device][0]}


def card(device: int) -> str:
    """The name of a device."""
    return cupy.cuda.runtime.getDeviceProperties(device)["name"].decode()


def backend_graph(graph: Any) -> Any:
    """The library's own side of a graph that has been planned; earlier frontends have no other."""
    return getattr(graph, "_lowered_graph", None) or graph


def execute(graph: Any, pointers: dict[int, int], workspace: int, index: int, handle: int) -> None:
    """Run a plan: device pointers by the numbers of the graph's tensors."""
    graph._execute_plan_at_index(pointers, workspace, index, handle)


def capturing() -> bool:
    """Whether the current stream records a CUDA graph."""
    return cupy.cuda.get_current_stream().is_capturing()


def outside_capture(what: str) -> None:
    """Refuse what a stream that records cannot hold."""
    if capturing():
        rule = f"cannot {what} while a CUDA graph is captured."
        raise EngineError(message("cudnn", rule, "", "run the same call once before the capture."))
