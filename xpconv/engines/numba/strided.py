"""Copies between arrays whose channels lie side by side, whatever the strides of the other axes are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.team import run, threads_for

AXES = 5  # at most, the channels among them
_KINDS = {4: "int32", 8: "int64"}  # numbers that are only moved, by their bytes
_TASK = 2**15  # numbers


def copies(x: np.ndarray) -> bool:
    """Whether `copy` can read or write an array: whole numbers where they belong, not what objects are known by."""
    numbers = x.itemsize in _KINDS and x.dtype.kind in "biufc" and x.flags.aligned
    return numbers and 2 <= x.ndim <= AXES and x.strides[-1] == x.itemsize


def copy(x: int, y: int, itemsize: int, shape: Sequence[int], xs: Sequence[int], ys: Sequence[int]) -> None:
    """Copy numbers from one address to another, by the strides there."""
    rows, n, missing = math.prod(shape[:-1]), shape[-1], AXES - len(shape)
    each = max(1, _TASK // max(n, 1))
    sizes = *(1,) * missing, *shape[:-1]
    strides = *(0,) * missing, *xs[:-1], *(0,) * missing, *ys[:-1]
    kernel = address("strided", "copy", _KINDS[itemsize])
    run(kernel, -(-rows // each), x, y, n, rows, each, *sizes, *strides, threads=threads_for(rows * n))
