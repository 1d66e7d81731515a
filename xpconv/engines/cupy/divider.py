"""Divisors as kernels take them: `struct Divider` in kernels/common.cuh, which multiplies instead of dividing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

DIVIDER = np.dtype([("long_magic", "u8"), ("by", "i8"), ("magic", "u4"), ("shift", "i4")], align=True)


@functools.lru_cache(maxsize=4096)
def divider(by: int) -> np.ndarray[Any, Any]:
    """What divides by a number: n / by = (n · magic) >> (31 + shift) for n < 2³¹ if by is, and likewise for 63."""
    by = max(by, 1)  # nothing is divided by what an empty array has of something
    shift = (by - 1).bit_length()
    short, long = (-(-(1 << bits + shift) // by) % (1 << bits + 1) for bits in (31, 63))
    return np.array([(long, by, short, shift)], dtype=DIVIDER)


def dividers(numbers: Sequence[int]) -> np.ndarray[Any, Any]:
    """One for each of three axes; axes that are not there have one cell."""
    return np.concatenate([divider(n) for n in (*(1,) * (3 - len(numbers)), *numbers)])
