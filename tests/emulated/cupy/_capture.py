"""Stream capture: work is recorded instead of run, and a graph runs it as often as it is launched.

As on a GPU, nothing is computed while a stream is captured: what a call will give has its shape, and garbage in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cupy import emulation

Step = Callable[[], object]


class _Local(threading.local):
    steps: list[Step] | None = None
    spoilt = False  # by a call that failed, whoever caught its error


_local = _Local()


def capturing() -> bool:
    return _local.steps is not None


def spoilt() -> bool:
    return _local.spoilt


def begin() -> None:
    if capturing():
        raise RuntimeError("cudaErrorIllegalState: this thread captures already")
    _local.steps, _local.spoilt = [], False


def end() -> list[Step]:
    if _local.steps is None:
        raise RuntimeError("cudaErrorIllegalState: nothing is being captured")
    steps, _local.steps = _local.steps, None
    if _local.spoilt:
        raise RuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture")
    return steps


def record(step: Step) -> None:
    assert _local.steps is not None
    _local.steps.append(step)


def keep(memory: object) -> None:
    """Have a graph hold what was allocated while it was captured, as its pool does: plans know of addresses alone."""
    if capturing():
        record(lambda: memory)


def note(function: object) -> None:
    """Remember what is used, and what a capture uses that was not there before: compiling it is no work for a graph."""
    if function not in emulation.used:
        emulation.used.add(function)
        if capturing():
            emulation.first_in_a_graph.append(function)


def forbid(what: str) -> None:
    """Raise if a stream is being captured: ``what`` cannot be part of a graph."""
    if capturing():
        _local.spoilt = True
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is being captured")
