"""Arrays of a case where xpconv is to work on them, and back on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import Backend, to_numpy
from xpconv.errors import dtype_name

_LINE = 64  # bytes of a cache line


def placed(place: Backend, x: np.ndarray, dtype: str) -> Any:
    """The array on a backend, floating-point values in ``dtype``."""
    return place.asarray(at_cache_line(x) if place.library == "numpy" else x, dtype if x.dtype.kind in "fc" else None)


def host(x: Any) -> np.ndarray:
    """The values on the host, half precision in float32."""
    values = to_numpy(x)
    return values.astype("float32") if dtype_name(x.dtype) in ("float16", "bfloat16") else values


def at_cache_line(x: np.ndarray) -> np.ndarray:
    """A copy where a layer before would have left it; every peer, too, copies what it is given to memory of its own."""
    memory = np.empty(x.nbytes + _LINE, np.uint8)
    copy = np.ndarray(x.shape, x.dtype, memory, -memory.ctypes.data % _LINE)
    copy[...] = x
    return copy
