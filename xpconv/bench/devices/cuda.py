"""A CUDA device by whatever library: batches of calls between two events."""

from __future__ import annotations

import math
import re
import statistics
import subprocess
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from xpconv.bench.candidate import Candidate
from xpconv.bench.devices import Device, Timed
from xpconv.kinds import PARTS

_BATCH = 0.004  # seconds of calls between two events, so that the first launch's way to the device counts for little
_MOST_IN_BATCH = 200  # stays below what a stream's queue holds
_BATCHES = 3  # in a turn at least
_COPIED, _MATRIX = 2**30, 8192  # bytes, and the side of a square: far beyond the caches
_REPEATS = 10


class Cuda(Device):
    """Adapters say how their library makes and reads events, copies, and multiplies matrices."""

    @abstractmethod
    def record(self) -> Any:
        """An event, recorded on the current stream."""

    @abstractmethod
    def elapsed(self, first: Any, last: Any) -> float:
        """Seconds between two events, after the last has come."""

    @abstractmethod
    def synchronize(self) -> None:
        """Return when the device has done all that was asked of it."""

    @abstractmethod
    def copying(self, count: int) -> Callable[[], Any]:
        """A call that copies so many bytes on the device."""

    @abstractmethod
    def multiplying(self, n: int, dtype: str) -> Callable[[], Any]:
        """A call that multiplies two random n x n matrices, in the precision in force."""

    def timed(self, candidate: Candidate, seconds: float) -> Timed:
        """Seconds per call, a figure for each batch of calls; the device is idle when a batch begins."""
        self.batch(candidate.call, 1)
        calls = max(1, min(_MOST_IN_BATCH, math.ceil(_BATCH / max(self.batch(candidate.call, 3)[0], 1e-7))))
        times: list[float] = []
        host: list[float] = []
        while len(times) < _BATCHES or sum(times) * calls < seconds:
            took, handed = self.batch(candidate.call, calls)
            times.append(took)
            host.append(handed)
        return Timed(times, host)

    def batch(self, call: Callable[[], Any], calls: int) -> tuple[float, float]:
        """Seconds per call on the device, and on the host until the call came back."""
        self.synchronize()
        first, started = self.record(), time.perf_counter()
        for _ in range(calls):
            call()
        handed, last = time.perf_counter() - started, self.record()
        self.synchronize()
        return self.elapsed(first, last) / calls, handed / calls

    def ceiling(self, dtype: str) -> dict[str, Any]:
        """The rates of a large matrix product and of a large copy."""
        count, n = (2**16, 64) if self.emulated else (_COPIED, _MATRIX)
        dtype = PARTS.get(dtype, dtype)
        copy, product = (self.typical(call) for call in (self.copying(count), self.multiplying(n, dtype)))
        return {
            "gflops": round(2 * n**3 / product / 1e9, 1),
            "gbytes_per_s": round(2 * count / copy / 1e9, 1),
            "how": f"a product of {n} x {n} matrices of {dtype}; a copy of {count} bytes, read and written",
        }

    def typical(self, call: Callable[[], Any]) -> float:
        """Median seconds of a call."""
        for _ in range(3):
            self.batch(call, 1)
        return statistics.median(self.batch(call, 3)[0] for _ in range(_REPEATS))


def driver() -> dict[str, str]:
    """The driver's version and the clock's limits, as NVIDIA's own tool tells them; nothing without it."""
    fields = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return {re.sub(r"\W", "_", name): value for name, value in zip(fields, values, strict=False)}
