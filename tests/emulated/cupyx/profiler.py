"""CuPy's timer of calls: as strict about what it is given, and its times are the host's."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


def benchmark(
    func: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    n_repeat: int = 10000,
    *,
    name: str | None = None,
    n_warmup: int = 10,
) -> SimpleNamespace:
    """Seconds of each call; without a name the callable must have one."""
    name = func.__name__ if name is None else name
    times = []
    for _ in range(n_warmup + n_repeat):
        started = time.perf_counter()
        func(*args, **(kwargs or {}))
        times.append(time.perf_counter() - started)
    return SimpleNamespace(name=name, cpu_times=np.array(times[n_warmup:]), gpu_times=np.array([times[n_warmup:]]))
