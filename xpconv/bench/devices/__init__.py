"""Where a side's arrays are: how calls are timed there, what memory they take, and what could be reached at most.

All that differs between a host and a GPU is here. Each side names its `Device`; the base class is the host.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from xpconv.bench import ceiling
from xpconv.bench.candidate import Candidate

MOST_CALLS = 20  # timed in one turn
FEW, LONG = 3, 1.0  # calls that a median takes, and seconds of calls in one turn after which it is of fewer
WARM_UP = 0.02  # seconds before: a machine whose cores were asleep may take some ten milliseconds to give both


class Timed(NamedTuple):
    """Seconds that each call took, and, where calls are only handed to a device, seconds that the handing took."""

    times: list[float]
    host: list[float]


class Device:
    """The host: the clock is read around each call, after what it started has ended."""

    emulated = False  # whether it only stands for a device: its times mean nothing

    def timed(self, candidate: Candidate, seconds: float) -> Timed:
        """Times of calls for so many seconds; the first ones wake caches and threads, and are not told."""
        awake = time.perf_counter() + WARM_UP
        candidate.wait(candidate.call())
        while time.perf_counter() < awake:
            candidate.wait(candidate.call())
        times: list[float] = []
        while not times or (len(times) < MOST_CALLS and sum(times) < (LONG if len(times) < FEW else seconds)):
            started = time.perf_counter()
            candidate.wait(candidate.call())
            times.append(time.perf_counter() - started)
        return Timed(times, [])

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Bytes that a call takes at most beyond what was there; `None` where that cannot be told."""
        from xpconv.bench.memory import growth

        return growth(call)

    def release(self) -> None:
        """Give memory back that a library keeps for later: other sides are on the same device."""
        engine = sys.modules.get("xpconv.engines.numba")
        if engine is not None:
            engine.release()

    def facts(self) -> dict[str, Any]:
        """What the machine's own facts do not say of the device."""
        return {}

    def ceiling(self, dtype: str) -> dict[str, Any]:
        """Billions of operations, and of bytes read and written, per second; and how each was found."""
        return ceiling.measured()
