"""A stand-in for CuPy 14 that computes on the CPU, for tests without a GPU; see the README beside it."""

from __future__ import annotations

from builtins import bool

from cupy import _functions, cuda, emulation
from cupy._array import ndarray
from cupy._raw import RawKernel, RawModule
from cupy.cuda import get_default_memory_pool, get_default_pinned_memory_pool

__version__ = "14.2.0+emulated"

globals().update(_functions.namespace())


def show_config() -> None:
    print(f"CuPy {__version__}: {emulation.NAME}")
