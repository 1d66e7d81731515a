"""How the array of a state is held: NumPy's in memory of its own and protected, so that no change goes unnoticed."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import Array, library


def protect(x: Array, protected: bool) -> None:
    """Let NumPy refuse what writes into x: nobody would learn of it, and copies packed for kernels would be stale."""
    if isinstance(x, np.ndarray):
        x.flags.writeable = not protected


def owned(x: Array) -> Array:
    """x as a value: in C order, in which engines update all parameters at once, and others' weights may not come in.

    NumPy's are protected, and in memory of their own, which another library's or a pickle's is not.
    """
    flags = getattr(x, "flags", None)  # NumPy's and CuPy's
    if flags is not None and not flags.c_contiguous:
        x = x.copy()
    if isinstance(x, np.ndarray) and not x.flags.owndata:
        x = x.copy()
    protect(x, True)
    return x


def place_of(x: Array) -> tuple[Any, ...]:
    """Library, device and dtype: what two arrays share of which one can be written into the other."""
    if type(x) is np.ndarray:  # whose device is the only one
        return "numpy", "cpu", x.dtype
    return library(x), x.device, x.dtype
