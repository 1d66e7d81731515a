"""The GPU as CuPy sees it: where xpconv's own side runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cupy  # type: ignore[import-not-found, unused-ignore]
import numpy as np

from xpconv import ops
from xpconv.backend import get
from xpconv.bench.devices.cuda import Cuda, driver
from xpconv.settings import current, use_engine

_DRAWN = 4_194_301  # numbers that fill a matrix again and again; prime, so that no two of its rows are equal


class CupyDevice(Cuda):
    """The device of the backend in force, which becomes this process's own."""

    def __init__(self) -> None:
        place = get(current().backend).device
        if place is not None:
            place.use()

    def record(self) -> Any:
        event = cupy.cuda.Event()
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        return float(cupy.cuda.get_elapsed_time(first, last)) / 1e3

    def synchronize(self) -> None:
        cupy.cuda.Device().synchronize()

    def copying(self, count: int) -> Callable[[], Any]:
        x, y = (cupy.ones(count // 4, dtype="float32") for _ in range(2))

        def copy() -> None:
            y[...] = x

        return copy

    def multiplying(self, n: int, dtype: str) -> Callable[[], Any]:
        drawn, place = np.random.default_rng(0).standard_normal(_DRAWN, dtype="float32"), get(current().backend)
        x, y = (place.asarray(np.resize(values, (n, n)), dtype) for values in (drawn, drawn[::-1]))

        def product() -> Any:
            with use_engine("auto"):
                return ops.linear(x, y)

        return product

    def peak(self, call: Callable[[], Any]) -> int | None:
        """What the pool had to take from the device: results, what they keep, scratch and the pool's own rounding."""
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        kept = call()
        self.synchronize()
        del kept
        return int(pool.total_bytes() - before)

    def release(self) -> None:
        cupy.get_default_memory_pool().free_all_blocks()

    def facts(self) -> dict[str, Any]:
        number = cupy.cuda.runtime.getDevice()
        found = cupy.cuda.runtime.getDeviceProperties(number)
        return {
            "gpu": found["name"].decode(),
            "compute_capability": f"{found['major']}.{found['minor']}",
            "multiprocessors": found["multiProcessorCount"],
            "gpu_memory_bytes": found["totalGlobalMem"],
            **driver(),
        }


class EmulatedDevice(CupyDevice):
    """The stand-in for CuPy that the tests bring: it goes the same ways, and its times are those of the host."""

    emulated = True

    def record(self) -> Any:
        return time.perf_counter()

    def elapsed(self, first: Any, last: Any) -> float:
        return float(last - first)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "emulated": True}


def device() -> CupyDevice:
    """The device that CuPy here has."""
    return EmulatedDevice() if hasattr(cupy, "emulation") else CupyDevice()


def kernel(source: str, name: str) -> Any:
    """A CUDA kernel from its source."""
    return cupy.RawKernel(source, name)


def versions() -> dict[str, str]:
    """Of CuPy, CUDA and, where it is there, cuDNN."""
    found = {"cupy": cupy.__version__, "cuda": _dotted(cupy.cuda.runtime.runtimeGetVersion(), 1000, 10)}
    found["driver's cuda"] = _dotted(cupy.cuda.runtime.driverGetVersion(), 1000, 10)
    try:
        import cudnn  # type: ignore[import-not-found, import-untyped, unused-ignore]

        found |= {"cudnn-frontend": cudnn.__version__, "cudnn": _dotted(cudnn.backend_version(), 10000, 100)}
    except Exception:  # an optional library, and whatever keeps it from loading
        pass
    return found


def _dotted(number: int, major: int, minor: int) -> str:
    """``91900`` as ``9.19``."""
    return f"{number // major}.{number % major // minor}"
