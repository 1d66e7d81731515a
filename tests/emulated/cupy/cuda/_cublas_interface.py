"""The C interface of cuBLAS as a shared library, for who calls it by its names; Python computes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_MATRIX = (ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
_PRODUCT = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_size_t, *(ctypes.c_int,) * 5, ctypes.c_size_t),
    *(*_MATRIX, *_MATRIX, ctypes.c_size_t, *_MATRIX, *(ctypes.c_int,) * 3),
)
_SETTING = ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.c_size_t,) * 3)
_INVALID = 7  # CUBLAS_STATUS_INVALID_VALUE

_workspaces: dict[int, tuple[int, int]] = {}  # by handle: address and size of one that was given to it
_kept: list[Any] = []


@cache
def library(product: Callable[..., None]) -> Path:
    """The library, with products that come to ``product``."""
    from cupy import _raw

    path = _raw.compiled((Path(__file__).parent / "cublas.cpp").read_text())
    found = ctypes.CDLL(str(path))

    def computed(*args: int) -> int:
        if args[0] not in _workspaces:
            return _INVALID  # stricter than cuBLAS, which would allocate within the graph
        try:
            product(*args)
        except RuntimeError:
            return _INVALID
        return 0

    def workspace(handle: int, address: int, size: int) -> int:
        _workspaces[handle] = (address, size)
        return 0 if address and size else _INVALID

    def stream(handle: int, number: int, _: int) -> int:
        from cupy.cuda import get_current_stream

        _workspaces.pop(handle, None)
        return 0 if number == get_current_stream().ptr else _INVALID

    entries = (("product", _PRODUCT(computed)), ("workspace", _SETTING(workspace)), ("stream", _SETTING(stream)))
    for name, entry in entries:
        ctypes.c_void_p.in_dll(found, f"emulated_cublas_{name}").value = ctypes.cast(entry, ctypes.c_void_p).value
        _kept.append(entry)
    return path
