"""Which plan was fastest on which card: measured once where `autotune` is set, and kept on disk.

One JSON file for each card and version of the library, from problems to layouts and names of plans; it is read, never
run. One that is damaged, or names a plan that is there no longer, is as good as none.
"""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cupy

from xpconv.atomic import cache_folder, replacing
from xpconv.engines.cudnn import library
from xpconv.engines.cudnn.problem import Problem
from xpconv.errors import message

_RUNS = 3  # of which the fastest counts
_HELD = 2  # times what the host takes to hand the runs out, for which the device waits
_MOST_HELD = (
    0.1  # seconds: the run that tells the host's time may have been interrupted, and a display needs the device
)
_CYCLES = 2e9  # of a device in a second, about as many as any has
_WAIT = """
extern "C" __global__ void wait(long long cycles) {
  for (long long start = clock64(); clock64() - start < cycles;) {}
}
"""
_lock = threading.Lock()


def seconds(run: Callable[[], None]) -> float:
    """The time that the device takes for a run, after two to warm up.

    It is held until the host has handed out all runs: else it would wait for the host within each of a small layer, and
    what lies between two events would be the host's time, alike for every candidate.
    """
    run()
    cupy.cuda.get_current_stream().synchronize()
    started = time.perf_counter()
    run()
    _hold(min(_HELD * _RUNS * (time.perf_counter() - started), _MOST_HELD))
    spans = []
    for _ in range(_RUNS):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        spans.append((start, end))
    spans[-1][1].synchronize()
    return min(cupy.cuda.get_elapsed_time(*span) for span in spans) / 1000


def _hold(duration: float) -> None:
    """Keep the current stream busy for so many seconds, or a little longer."""
    cupy.RawKernel(_WAIT, "wait")((1,), (1,), (int(duration * _CYCLES),))


def known(problem: Problem) -> str | None:
    """The choice for a problem, as `keep` was told of it."""
    return _choices(path(problem.device)).get(_key(problem))


def keep(problem: Problem, choice: str) -> None:
    """Remember which plan was fastest for a problem, here and on disk."""
    file = path(problem.device)
    with _lock:
        _choices(file)[_key(problem)] = choice
        merged = {**_read(file), **_choices(file)}  # another process may have written since
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as beside:
                beside.write_text(json.dumps(merged, indent=1, sort_keys=True))
        except OSError as error:
            rule = "choices of plans cannot be kept on disk: each process measures them anew."
            warnings.warn(message("cudnn", rule, str(error)), RuntimeWarning, stacklevel=2)


@lru_cache(maxsize=16)
def path(device: int) -> Path:
    """Where the choices for a device are kept."""
    card = re.sub(r"[^A-Za-z0-9]+", "-", library.card(device)).strip("-")
    return cache_folder() / "cudnn" / f"{card}-{library.VERSION}.json"


@lru_cache(maxsize=16)
def _choices(file: Path) -> dict[str, str]:
    return _read(file)


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _key(problem: Problem) -> str:
    """All of a problem but the device, which the file stands for."""
    w = problem.window
    window = (w.size, w.kernel, w.stride, w.dilation, w.padding, w.out)
    return json.dumps([*problem._replace(window=window, device=0)])  # type: ignore[arg-type]
