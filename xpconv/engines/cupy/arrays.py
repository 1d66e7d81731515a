"""What kernels may be handed: dense memory of the four floating dtypes."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import HALVES, Array
from xpconv.engines.cupy.compiled import DTYPES
from xpconv.errors import dtype_name


def dense(x: Array) -> Array:
    """The array itself if it lies in C order, else such a copy; `ascontiguousarray` gives one without axes an axis."""
    return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def dense_or_none(x: Array | None) -> Array | None:
    return None if x is None else dense(x)


def computed_in(dtype: Any) -> np.dtype[Any]:
    """The dtype that sums are kept in."""
    return np.dtype(np.float32) if dtype_name(dtype) in HALVES else np.dtype(dtype)


def is_half(x: Array) -> bool:
    return dtype_name(x.dtype) in HALVES


def unsupported(*arrays: Any, **_: Any) -> str | None:
    """Why kernels cannot take these arrays, or `None`: the reason that primitives decline with."""
    for x in arrays:
        if x is not None and dtype_name(x.dtype) not in DTYPES:
            return f"computes in {', '.join(DTYPES)}, not {dtype_name(x.dtype)}"
    return None
