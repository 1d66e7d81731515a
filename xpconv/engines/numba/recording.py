"""Work that is noted while it is done, to be done again on the same memory: how a training step becomes one call.

While a thread records, every job it gives the team is noted with its integers, and so is what NumPy does besides,
where it is said to `also`. Jobs name memory by address: what the thread allocates for outputs and scratch meanwhile
comes from a store of the recording's own, which others are never given, and all else that kernels are told the place
of is held. Only launchers' own arrays may be addressed by anything but `arrays.place`.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from xpconv.engines.numba.reuse import Reuse
from xpconv.runtime import recorder, recorders

_HEAD = 5  # words of a job before those of its kernel


class Recorder:
    """What a thread's work consists of: runs of jobs, and calls between them."""

    def __init__(self) -> None:
        self.memory = Reuse(sys.maxsize, threading.RLock())
        self.parts: list[array[int] | Callable[[], object]] = []  # addresses of jobs, or what is to be called
        self._held: dict[int, Any] = {}

    def __enter__(self) -> Recorder:
        recorders[get_ident()] = self
        return self

    def __exit__(self, *error: object) -> None:
        del recorders[get_ident()]

    def scratch(self, nbytes: int) -> np.ndarray:
        """Bytes of the recording's own memory, which it takes back when they are dropped."""
        return np.ndarray(nbytes, np.uint8, *self.memory.take(nbytes))

    def job(self, words: array[int], fresh: Callable[[], Sequence[int]] | None) -> None:
        """Note a job; ``fresh`` gives its kernel's integers anew before each time it is done."""
        if fresh is not None:
            self.note(lambda: words.__setitem__(slice(_HEAD, None), array("q", fresh())))
        if not self.parts or not isinstance(self.parts[-1], array):
            self.parts.append(array("q"))
        run = self.parts[-1]
        assert isinstance(run, array)
        run.append(words.buffer_info()[0])
        self.hold(words)

    def note(self, work: Callable[[], object]) -> None:
        """Note a call between jobs."""
        self.parts.append(work)

    def hold(self, thing: Any) -> None:
        """Keep alive whatever owns the memory of an array, or another object, unless it is the recording's own."""
        while isinstance(thing, np.ndarray) and thing.base is not None:
            thing = thing.base
        if getattr(thing, "home", None) is not self.memory:
            self._held[id(thing)] = thing


def hold(thing: Any) -> None:
    """Keep what a job reads by an address that was noted earlier."""
    noting = recorder()
    if noting is not None:
        noting.hold(thing)
