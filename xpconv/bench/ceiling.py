"""What this machine could do at most: arithmetic in registers, and a copy of memory.

An engine that can look has a module ``ceiling`` with ``gigaflops(threads)`` and ``gigabytes(threads)``; it is found by
the engine's name. Where none has, a product of large matrices and a copy stand in, and the figures say so.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.backend import get
from xpconv.bench.candidate import waiting
from xpconv.cores import usable_cores
from xpconv.dispatch import ANY_LIBRARY, CHAINS
from xpconv.settings import current

_SIZE = 2048  # of the matrices, square
_BYTES = 2**27  # copied
_REPEATS = 5


def measured() -> dict[str, Any]:
    """Billions of float32 operations, and of bytes read and written, per second; and how each was found."""
    threads = current().num_threads or usable_cores()[0]
    place = get(current().backend)
    for engine in CHAINS.get(place.library, ANY_LIBRARY):
        try:
            ceiling = importlib.import_module(f"xpconv.engines.{engine}.ceiling")
        except ImportError:
            continue
        return {
            "gflops": round(ceiling.gigaflops(threads), 1),
            "gbytes_per_s": round(ceiling.gigabytes(threads), 1),
            "how": "multiply-adds in registers; a copy beyond the caches, bytes read and written",
        }
    return {
        "gflops": round(2 * _SIZE**3 / _matrix_seconds(place) / 1e9, 1),
        "gbytes_per_s": round(2 * _BYTES / _copy_seconds(place) / 1e9, 1),
        "how": f"a product of {_SIZE} x {_SIZE} matrices; a copy beyond the caches, bytes read and written",
    }


def _matrix_seconds(place: Any) -> float:
    x = place.asarray(np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype="float32"))
    return least(lambda: x @ x, waiting(x))


def _copy_seconds(place: Any) -> float:
    x, y = (place.asarray(np.ones(_BYTES // 4, dtype="float32")) for _ in range(2))

    def copy() -> None:
        y[...] = x

    return least(copy, waiting(x))


def least(call: Callable[[], object], wait: Callable[[Any], None]) -> float:
    """Least seconds of some calls: interruptions only ever add."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        wait(call())
        times.append(time.perf_counter() - started)
    return min(times)
