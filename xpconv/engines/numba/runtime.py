"""The Runtime of NumPy arrays: a step that is noted while it runs is done again as one call, with no Python between.

A replay does the jobs of the step on the same memory (`recording`), and with the same bits, since what a job computes
depends on its integers and on what they point to alone. What NumPy computes besides goes unnoticed, unless it is said
to `runtime.also`: so whoever records is to compare a replay with the step once.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable
from typing import Generic, TypeVar

from xpconv.dispatch import CHAINS
from xpconv.engines.numba import reuse, team
from xpconv.engines.numba.recording import Recorder
from xpconv.runtime import Recording, Runtime
from xpconv.settings import current

T = TypeVar("T")


class NumpyRuntime(Runtime):
    """The runtime of NumPy arrays where kernels are compiled."""

    recording = "replay"
    eager = True

    @property
    def records(self) -> bool:  # type: ignore[override]
        """Whether kernels are compiled for what ops do here."""
        return "numba" in (current().engine or CHAINS["numpy"])

    def release(self) -> None:
        """Drop what waits in the store of outputs."""
        reuse.outputs.clear()

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Do the work, and note it."""
        self.release()  # what the runs before it took, the recording will need
        with Recorder() as noting:
            result = work()
        return _Replay(result, noting)


class _Replay(Generic[T]):
    """Jobs and calls with the memory that they work in."""

    def __init__(self, result: T, noted: Recorder) -> None:
        self.result, self._noted = result, noted
        taken = noted.memory.taken
        self.burden = f"its memory, {taken >> 20} MiB, would be kept" if taken > reuse.share() else ""
        self._parts = [functools.partial(team.run_all, p) if isinstance(p, array) else p for p in noted.parts]

    def replay(self) -> None:
        """Do it once more."""
        for part in self._parts:
            part()
