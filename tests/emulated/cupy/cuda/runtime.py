"""What is asked of the CUDA runtime."""

from __future__ import annotations

from typing import Any

from cupy import emulation
from cupy.cuda import device

CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = 0, 1, 2


class CUDARuntimeError(RuntimeError):
    pass


def getDeviceCount() -> int:
    return emulation.DEVICES


def getDeviceProperties(device_id: int) -> dict[str, Any]:
    return {"name": emulation.NAME.encode(), "multiProcessorCount": 4, "totalGlobalMem": 2**33, "major": 9, "minor": 0}


def getDevice() -> int:
    return device.current_device_id()


def driverGetVersion() -> int:
    return 0


def runtimeGetVersion() -> int:
    return 0


def deviceSynchronize() -> None:
    device.Device().synchronize()


def memGetInfo() -> tuple[int, int]:
    return 2**33, 2**33
