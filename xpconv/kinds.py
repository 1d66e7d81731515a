"""The kinds of numbers that arrays hold: floating, complex, integer or bool, by the names of their dtypes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from xpconv.backend import Array
from xpconv.errors import dtype_name

PARTS = {"complex64": "float32", "complex128": "float64"}  # the dtype of real and imaginary parts, by the complex one


def is_inexact(x: Array) -> bool:
    """Whether an array holds real or complex floating-point numbers."""
    if type(x) is np.ndarray:
        return x.dtype.kind in "fc"
    return dtype_kind(x.dtype) in "fc"


def dtype_kind(dtype: Any) -> str:
    """``f`` floating, ``c`` complex, ``i`` integer, ``b`` bool, ``?`` anything else, for every library's dtypes."""
    if isinstance(dtype, np.dtype) and dtype.kind in "fcib":  # told apart in half the time
        return dtype.kind
    return _kind_of_name(dtype_name(dtype))


@functools.cache
def _kind_of_name(name: str) -> str:
    for prefix, kind in (("float", "f"), ("bfloat", "f"), ("complex", "c"), ("int", "i"), ("uint", "i"), ("bool", "b")):
        if name.startswith(prefix):
            return kind
    return "?"
