"""Average pooling: sums over windows by their divisors, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.pool import access, gather, helper, known, merger, of_windows
from xpconv.engines.numba.kernels.vectors import vectors


def forward(dtype: str, lanes: int, whole: bool, run: int, k0: int, k1: int, k2: int) -> Callable[..., Any]:
    """Rows of y, (N, *out, C); where ``run`` is not 0, sums are compensated sums of so many terms.

    Where every window has k0 · k1 · k2 real cells, the compiler may know (else 0). Arguments: x, y, plan, channels,
    rows of all images, rows of a task.
    """
    number = number_type(dtype)
    numbers, zero, splat = pointers(number), number(0), vectors(dtype, lanes).splat
    (load, store), (merge, result) = access(dtype, lanes, whole), merger(run > 0)
    size0, size1, size2, length = known(k0), known(k1), known(k2), known(run)

    def kernel(args, task, slot):
        x, y, plan = numbers(args[0]), numbers(args[1]), words(args[2])
        channels, rows, each = args[3], args[4], args[5]
        n0, m0, cells0, step0, _, by0 = of_windows(plan, 0)
        n1, m1, cells1, step1, _, by1 = of_windows(plan, 1)
        n2, m2, cells2, step2, _, by2 = of_windows(plan, 2)
        for row in range(task * each, min(rows, (task + 1) * each)):
            image, i, j = row // (m0 * m1), row // m1 % m0, row % m1
            first0, count0 = cells0[2 * i], size0(cells0[2 * i + 1])
            first1, count1 = cells1[2 * j], size1(cells1[2 * j + 1])
            for k in range(m2):
                first2, count2 = cells2[2 * k], size2(cells2[2 * k + 1])
                by = splat(number(by0[i] * by1[j] * by2[k]))
                for c in range(0, channels, lanes):
                    left = channels - c
                    total, lost = splat(zero), splat(zero)
                    for e in range(count0):
                        for f in range(count1):
                            line = (image * n0 + first0 + e * step0) * n1 + first1 + f * step1
                            for start in range(0, count2, length(count2)):
                                part = splat(zero)
                                for g in range(start, min(start + length(count2), count2)):
                                    part = part + load(x, (line * n2 + first2 + g * step2) * channels + c, left)
                                total, lost = merge(total, lost, part)
                    store(y, (row * m2 + k) * channels + c, result(total, lost) / by, left)

    return kernel


def forward_wide(dtype: str, lanes: int, whole: bool, streams: int) -> Callable[..., Any]:
    """As `forward`, for large windows over many channels; one more argument: how many of them a task takes.

    So many neighbouring cells are read side by side, from the first channel to the last; their sums are added up in y.
    """
    number = number_type(dtype)
    numbers, zero, splat = pointers(number), number(0), vectors(dtype, lanes).splat
    load, store = access(dtype, lanes, whole)

    def kernel(args, task, slot):
        x, y, plan = numbers(args[0]), numbers(args[1]), words(args[2])
        channels, rows, each, width = args[3], args[4], args[5], args[6]
        n0, m0, cells0, step0, _, by0 = of_windows(plan, 0)
        n1, m1, cells1, step1, _, by1 = of_windows(plan, 1)
        n2, m2, cells2, step2, _, by2 = of_windows(plan, 2)
        parts = (channels + width - 1) // width
        begin, end, task = task % parts * width, min(channels, (task % parts + 1) * width), task // parts
        for pixel in range(task * each * m2, min(rows, (task + 1) * each) * m2):
            image, i, j, k = pixel // (m0 * m1 * m2), pixel // (m1 * m2) % m0, pixel // m2 % m1, pixel % m2
            count1, count2 = cells1[2 * j + 1], cells2[2 * k + 1]
            lines = cells0[2 * i + 1] * count1
            by = splat(number(by0[i] * by1[j] * by2[k]))
            for line in range(lines):
                a, b = cells0[2 * i] + line // count1 * step0, cells1[2 * j] + line % count1 * step1
                for start in range(0, count2, streams):
                    cell = (((image * n0 + a) * n1 + b) * n2 + cells2[2 * k] + start * step2) * channels
                    count = min(streams, count2 - start)
                    for c in range(begin, end, lanes):
                        left = channels - c
                        part = splat(zero)
                        for g in range(count):
                            part = part + load(x, cell + g * step2 * channels + c, left)
                        if line + start > 0:
                            part = part + load(y, pixel * channels + c, left)
                        if line == lines - 1 and start + count == count2:
                            part = part / by
                        store(y, pixel * channels + c, part, left)

    return kernel


def backward(dtype: str, lanes: int, whole: bool, alone: bool, run: int) -> Callable[..., Any]:
    """`gather` of dy by the divisor from all windows that see a cell."""
    number = number_type(dtype)
    load, splat = access(dtype, lanes, whole)[0], vectors(dtype, lanes).splat

    def own(x, place, code, left):
        return code

    def share(dy, kept, place, kept_place, code, by, left):
        return load(dy, place, left) * splat(number(1.0 / by))

    return gather(dtype, dtype, lanes, whole, alone, run, helper(own), helper(share))
