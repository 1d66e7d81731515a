"""What the CPU can do at most: multiply-adds that never leave the registers, and a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.vectors import multiply_add, vectors


def arithmetic(dtype: str, lanes: int) -> Callable[[Any, int, int], None]:
    """``args``: rounds, address of (scale, shift), address of results. ``s = s · scale + shift`` in twelve registers.

    Each is a chain of its own, so that none waits for another; the compiler cuts the wide vectors into registers.
    """
    element = pointers(number_type(dtype))
    wide, narrow = vectors(dtype, 8 * lanes), vectors(dtype, 4 * lanes)
    splat, store, splat_four, store_four = wide.splat, wide.store, narrow.splat, narrow.store
    width, eight = 12 * lanes, 8 * lanes

    def kernel(args, task, slot):
        numbers, results = element(args[1]), element(args[2])
        scale, shift = splat(numbers[0]), splat(numbers[1])
        scale_four, shift_four = splat_four(numbers[0]), splat_four(numbers[1])
        sums, sums_four = shift, shift_four
        for _ in range(args[0]):
            sums = multiply_add(sums, scale, shift)
            sums_four = multiply_add(sums_four, scale_four, shift_four)
        store(results, task * width, sums)
        store_four(results, task * width + eight, sums_four)

    return kernel


def copy(dtype: str) -> Callable[[Any, int, int], None]:
    """``args``: address to copy from, address to copy to, numbers in each task's piece."""
    element = pointers(number_type(dtype))

    def kernel(args, task, slot):
        source, target = element(args[0]), element(args[1])
        count = args[2]
        for i in range(task * count, (task + 1) * count):
            target[i] = source[i]

    return kernel
