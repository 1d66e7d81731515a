"""Copies of rows of numbers that lie side by side, between arrays whose other axes have strides of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.engines.numba.kernels.memory import number_type, pointers


def copy(dtype: str) -> Callable[..., Any]:
    """A run of rows. Arguments: from, to, numbers in a row, rows, rows in a run, the sizes of four axes of rows, then
    their strides in bytes on either side."""
    at = pointers(number_type(dtype))

    def kernel(args, task, slot):
        n, first = args[2], task * args[4]
        d = first % args[8]
        c = first // args[8]
        b = c // args[7]
        a = b // args[6]
        b, c = b % args[6], c % args[7]
        for _ in range(first, min(first + args[4], args[3])):
            source = at(args[0] + a * args[9] + b * args[10] + c * args[11] + d * args[12])
            target = at(args[1] + a * args[13] + b * args[14] + c * args[15] + d * args[16])
            for i in range(n):
                target[i] = source[i]
            d += 1
            if d == args[8]:
                c, d = c + 1, 0
            if c == args[7]:
                b, c = b + 1, 0
            if b == args[6]:
                a, b = a + 1, 0

    return kernel
