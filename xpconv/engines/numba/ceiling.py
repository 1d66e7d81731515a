"""Measures of the machine, to hold the speed of kernels against: `xpconv bench` asks for them."""

from __future__ import annotations

import time

import numpy as np

from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run

_DTYPE = "float32"
_ROUNDS = 200_000  # of one task, about a millisecond
_TASKS = 16  # for each thread, so that one that was held up leaves its share to the others
_PIECE = 2**16  # numbers that a task copies
_PIECES = 2**9  # 128 MiB in all: beyond the caches
_REPEATS = 20


def gigaflops(threads: int) -> float:
    """Billions of float32 operations per second that never leave the registers, two for each multiply-add."""
    lanes, tasks = machine().lanes(_DTYPE), _TASKS * threads
    numbers, results = np.asarray([0.5, 0.5], dtype=_DTYPE), np.empty((tasks, 12 * lanes), dtype=_DTYPE)
    kernel = address("ceiling", "arithmetic", _DTYPE, lanes)
    seconds = _least(kernel, tasks, threads, _ROUNDS, numbers.ctypes.data, results.ctypes.data)
    assert np.all(results == 1)  # where s = s/2 + 1/2 comes to rest
    return 2 * _ROUNDS * results.size / seconds / 1e9


def gigabytes(threads: int) -> float:
    """Billions of bytes per second that a copy beyond the caches reads and writes."""
    source, target = np.ones(_PIECE * _PIECES, dtype=_DTYPE), np.zeros(_PIECE * _PIECES, dtype=_DTYPE)
    kernel = address("ceiling", "copy", _DTYPE)
    seconds = _least(kernel, _PIECES, threads, source.ctypes.data, target.ctypes.data, _PIECE)
    assert np.array_equal(source, target)
    return 2 * source.nbytes / seconds / 1e9


def _least(kernel: int, tasks: int, threads: int, *args: int) -> float:
    """Least seconds of some runs: interruptions only ever add."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run(kernel, tasks, *args, threads=threads)
        times.append(time.perf_counter() - started)
    return min(times)
