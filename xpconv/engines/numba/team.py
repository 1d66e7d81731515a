"""The team of threads that kernels run on, and the one way to run a kernel.

Members wait inside compiled code, without the GIL: handing a job over costs them one look at a word, not a wake-up by
Python. The team belongs to the process: it starts with the first job that wants it, grows to what is asked for,
is told to stop at exit, and starts anew in a forked child.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from xpconv.cores import usable_cores
from xpconv.engines.numba import board as at
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.forks import fork_safe_lock
from xpconv.runtime import recorder
from xpconv.settings import current

ENOUGH = 2e5  # multiply-adds, or numbers moved: one thread does less, some 20 µs, sooner than it finds a second one
_MOST = 255  # members besides the caller
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)  # lets go of the GIL while it runs


class Team:
    """Threads that wait at a board for jobs."""

    def __init__(self) -> None:
        self._words = (ctypes.c_int64 * (at.MEMBERS + _MOST * at.MEMBER + at.LINE))()
        start = ctypes.addressof(self._words)
        aligned = -(-start // (8 * at.LINE)) * 8 * at.LINE
        self.board = aligned
        self._at = (ctypes.c_int64 * (at.MEMBERS + _MOST * at.MEMBER)).from_address(aligned)
        self._locks = ctypes.pythonapi.PyThread_allocate_lock
        self._locks.restype, self._locks.argtypes = ctypes.c_void_p, []
        for word, name in ((at.ACQUIRE, "PyThread_acquire_lock"), (at.RELEASE, "PyThread_release_lock")):
            self._at[word] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
        self._at[at.SELF] = aligned
        for word, function in _of_system().items():
            self._at[word] = function
        self._threads: list[threading.Thread] = []
        self._most = _MOST

    def grow(self, members: int) -> None:
        """Let at least so many threads wait at the board, or as many as the system lets us have."""
        serve = _KERNEL(address("teamwork", "serve"))
        while len(self._threads) < min(members, self._most):
            index = len(self._threads)
            lock = self._locks()
            ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
            self._at[at.MEMBERS + index * at.MEMBER + at.LOCK] = lock
            thread = threading.Thread(
                target=serve, args=(self.board, index, 0), name=f"xpconv-{index + 1}", daemon=True
            )
            self._threads.append(thread)  # its place at the board is taken, even if an interrupt comes while it starts
            self._at[at.TEAM] = index + 1
            try:
                thread.start()
                self._at[at.MEMBERS + index * at.MEMBER + at.THREAD] = thread.native_id or 0
            except RuntimeError:  # no more threads, or the interpreter is going home
                self._most = index

    def wants(self, members: int) -> bool:
        """Whether growing to so many members might add some."""
        return len(self._threads) < min(members, self._most)

    def stop(self) -> None:
        """Send everyone home: compiled code must not be running when the interpreter takes it away."""
        self._at[at.QUIT] = 1
        for index, thread in enumerate(self._threads):
            me = at.MEMBERS + index * at.MEMBER
            while thread.is_alive():  # one that never started is not
                if self._at[me + at.PARKED]:
                    self._at[me + at.PARKED] = 0
                    ctypes.pythonapi.PyThread_release_lock(ctypes.c_void_p(self._at[me + at.LOCK]))
                thread.join(0.001)


def _of_system() -> dict[int, int]:
    """The addresses of the system's functions that threads call, by their words at the board: those of Linux."""
    if not sys.platform.startswith("linux"):
        return {}
    names = (
        (at.GET_AFFINITY, "sched_getaffinity"),
        (at.SET_AFFINITY, "sched_setaffinity"),
        (at.GET_CPU, "sched_getcpu"),
        (at.YIELD, "sched_yield"),
    )
    library = ctypes.CDLL(None)
    try:
        return {word: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for word, name in names}
    except AttributeError:  # a C library that lacks one
        return {}


_team: Team | None = None
_starting = fork_safe_lock()


def team(members: int) -> Team:
    """The process's team, with at least so many members."""
    global _team
    if _team is None or _team.wants(members):
        with _starting:
            _team = _team or Team()
            _team.grow(members)
    return _team


@atexit.register
def _stop() -> None:
    if _team is not None:
        _team.stop()


def _forget() -> None:
    """A forked child has its parent's memory, but not its threads: jobs that were noted there are done alone here."""
    global _team
    if _team is not None:
        _team._at[at.TEAM] = 0
    _team = None
    _cores.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@functools.cache
def start() -> Any:
    """What hands out all jobs; the first kernel of the process."""
    return _KERNEL(address("teamwork", "submit"))


@functools.cache
def _start_all() -> Any:
    return _KERNEL(address("teamwork", "submit_all"))


def run_all(jobs: array[int]) -> None:
    """Do jobs that were noted (the addresses of their words), one after the other."""
    _start_all()(jobs.buffer_info()[0], len(jobs), 0)


def run(
    kernel: int, tasks: int, *args: int, threads: int = 1, fresh: Callable[[], Sequence[int]] | None = None
) -> None:
    """Do all tasks of a kernel (its address) with the integers it reads, on at most so many threads.

    Where these depend on what a recording is to read anew, ``fresh`` gives them again.
    """
    if threads < 2 or tasks < 2:
        members = 0
        board = 0
    else:
        members = min(threads, tasks, _MOST + 1) - 1
        board = team(members).board
    words = array("q", (board, kernel, tasks, members + 1, 0, *args))
    job = words.buffer_info()[0]
    words[4] = job + 5 * words.itemsize
    start()(job, 0, 0)
    noting = recorder()
    if noting is not None:
        noting.hold(_team)
        noting.job(words, fresh)


def threads_for(work: float) -> int:
    """How many threads so much work is worth, in multiply-adds or numbers moved."""
    return num_threads() if work > ENOUGH else 1


def num_threads() -> int:
    """The threads that an op may use here."""
    return current().num_threads or _cores()


@functools.cache
def _cores() -> int:
    return usable_cores()[0]
