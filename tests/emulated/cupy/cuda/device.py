"""The emulated devices, which one of them is current, and their handles."""

from __future__ import annotations

import threading
from typing import Any

from cupy import _capture, emulation


class _Current(threading.local):
    device = 0


_current = _Current()


def current_device_id() -> int:
    return _current.device


def synchronise(what: str) -> None:
    """The host waits for the device here."""
    _capture.forbid(what)
    emulation.counts["synchronisations"] += 1


class Device:
    """One of the emulated devices."""

    def __init__(self, device: Any = None) -> None:
        self.id = _current.device if device is None else int(device)
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        self._before.append(_current.device)
        self.use()
        return self

    def __exit__(self, *_: Any) -> None:
        _current.device = self._before.pop()

    def use(self) -> None:
        if not 0 <= self.id < emulation.DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _current.device = self.id

    def synchronize(self) -> None:
        synchronise("Device.synchronize")

    compute_capability = "90"
    attributes = {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlock": 48 * 1024}
    mem_info = (2**33, 2**33)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]  # as CuPy has it

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id} ({emulation.NAME})>"


def get_cublas_handle() -> int:
    return 1 + _current.device


def get_device_id() -> int:
    return _current.device


def get_compute_capability() -> str:
    return Device.compute_capability
