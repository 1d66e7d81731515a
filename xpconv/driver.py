"""The NVIDIA driver of this machine, and what to install for it; neither needs CuPy."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib import metadata


@lru_cache(maxsize=1)
def driver_version() -> int:
    """The newest CUDA that the driver serves, as 1000 * major + 10 * minor; 0 without a driver."""
    version = ctypes.c_int(0)
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
        except (OSError, AttributeError):
            continue
        break
    return version.value


def driver_found() -> str:
    """The driver in words."""
    version = driver_version()
    if not version:
        return "no NVIDIA driver was found on this machine"
    return f"NVIDIA driver found, CUDA {cuda(version)}"


def cuda(version: int) -> str:
    """``13.0`` for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"


def wheel() -> str:
    """The CuPy for the driver found; the newest, where there is none yet."""
    return "cuda12" if 12000 <= driver_version() < 13000 else "cuda13"


def install_cupy() -> str:
    """The line that installs it; wheels of two CUDAs overwrite each other, so that another one goes first."""
    line = f"pip install 'xpconv[{wheel()}]'"
    others = [
        name for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy") if name != f"cupy-{wheel()}x" and _is_here(name)
    ]
    return f"pip uninstall -y {' '.join(others)} && {line}" if others else line


def no_device() -> str:
    """What to do where CuPy is installed and finds no device."""
    version, hidden = driver_version(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not version:
        return "install the NVIDIA driver of this system (nvidia-smi shows whether it works), or use 'numpy'."
    if version < 12000:
        return f"CuPy 14 needs a driver for CUDA 12 or newer; this one serves CUDA {cuda(version)}: update the driver."
    if "uninstall" in install_cupy():
        return f"the CuPy that is installed is for another CUDA than the driver's: {install_cupy()}"
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES={hidden} says which GPUs may be used; nvidia-smi shows those that there are."
    return "the driver shows no GPU to this process: check nvidia-smi, and in a container whether GPUs are passed in."


def _is_here(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
