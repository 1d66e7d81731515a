"""What the kernels of pooling share: how they read a plan, the walk from cells to windows, and sums that do not drift.

There are always three spatial axes; those that an array lacks have one cell. On each axis a plan (`pool_plan.py`) says
which cells a window sees and which windows see a cell: a first one and how many, some step apart. Both directions are
the same walk then, and stride, padding, dilation and adaptive windows are the plan's business. A plan has eight words
for each axis: the numbers of cells and of windows; the cells' table and their step; the windows' and theirs; codes;
divisors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.vectors import choose, store_past_caches, vectors

Helper = Callable[..., Any]
_doubles = pointers(number_type("float64"))


def helper(function: Helper) -> Helper:
    """A function that kernels call."""
    return njit(function, error_model="numpy")


@helper
def of_windows(plan, axis):
    """One axis as windows see it: cells, windows, (first, how many) for each, the step; codes and divisors."""
    at = 8 * axis
    return plan[at], plan[at + 1], words(plan[at + 2]), plan[at + 3], words(plan[at + 6]), _doubles(plan[at + 7])


@helper
def of_cells(plan, axis):
    """One axis as cells see it."""
    at = 8 * axis
    return plan[at], plan[at + 1], words(plan[at + 4]), plan[at + 5], words(plan[at + 6]), _doubles(plan[at + 7])


def access(dtype: str, lanes: int, whole: bool, past: bool = False) -> tuple[Helper, Helper]:
    """``load(pointer, index, count)`` and ``store(pointer, index, vector, count)`` of whole vectors or count lanes.

    ``past``: whole vectors are stored past the caches.
    """
    functions = vectors(dtype, lanes)
    if not whole:
        return functions.load_some, functions.store_some
    load_all, store_all = functions.load, store_past_caches if past else functions.store

    def load(pointer, index, count):
        return load_all(pointer, index)

    def store(pointer, index, vector, count):
        store_all(pointer, index, vector)

    return helper(load), helper(store)


def merger(compensated: bool) -> tuple[Helper, Helper]:
    """``merge(total, lost, part) -> total, lost`` and ``result(total, lost)``; by Knuth's two-sum, or plain."""

    def add(total, lost, part):
        return total + part, lost

    def total_alone(total, lost):
        return total

    def two_sum(total, lost, part):
        merged = total + part
        back = merged - total
        return merged, lost + ((total - (merged - back)) + (part - back))

    def with_lost(total, lost):
        return choose(lost == lost, total + lost, total)  # what an infinite total lost is nan

    return (helper(two_sum), helper(with_lost)) if compensated else (helper(add), helper(total_alone))


def known(number: int) -> Helper:
    """``number``, which the compiler may know, whatever is asked; where it is 0, what is asked."""

    def constant(asked):
        return number

    def same(asked):
        return asked

    return helper(constant if number else same)


def gather(
    dtype: str, kept: str, lanes: int, whole: bool, alone: bool, run: int, own: Helper, share: Helper
) -> Callable[..., Any]:
    """A kernel for rows of dx, (N, *size, C): at each cell, the sum of what it gets of dy from the windows that see it.

    ``own(x, place, code, left)`` is what a cell is known by, ``share(dy, kept, place, kept_place, cell, by, left)``
    what it gets from a window. Where ``alone``, no cell is seen by two; where ``run`` is not 0, sums are compensated
    sums of so many terms. Arguments: dx, dy, kept, x, plan, channels, numbers kept for a pixel, rows of all images,
    rows of a task.
    """
    number = number_type(dtype)
    numbers, keeps, zero, splat = pointers(number), pointers(number_type(kept)), number(0), vectors(dtype, lanes).splat
    store, (merge, result) = access(dtype, lanes, whole)[1], merger(run > 0)
    number_of, length = known(int(alone)), known(run)

    def kernel(args, task, slot):
        dx, dy, kept, x, plan = numbers(args[0]), numbers(args[1]), keeps(args[2]), numbers(args[3]), words(args[4])
        channels, kept_row, rows, each = args[5], args[6], args[7], args[8]
        n0, m0, windows0, step0, codes0, by0 = of_cells(plan, 0)
        n1, m1, windows1, step1, codes1, by1 = of_cells(plan, 1)
        n2, m2, windows2, step2, codes2, by2 = of_cells(plan, 2)
        for row in range(task * each, min(rows, (task + 1) * each)):
            image, a, b = row // (n0 * n1), row // n1 % n0, row % n1
            first0, count0, first1, count1 = windows0[2 * a], windows0[2 * a + 1], windows1[2 * b], windows1[2 * b + 1]
            for d in range(n2):
                first2, count2 = windows2[2 * d], windows2[2 * d + 1]
                code, cell_place = codes0[a] + codes1[b] + codes2[d], (row * n2 + d) * channels
                for c in range(0, channels, lanes):
                    left = channels - c
                    total, lost = splat(zero), splat(zero)
                    if count0 * count1 * count2 > 0:
                        cell = own(x, cell_place + c, code, left)
                        for e in range(number_of(count0)):
                            i = first0 + e * step0
                            for f in range(number_of(count1)):
                                j = first1 + f * step1
                                line, by = ((image * m0 + i) * m1 + j) * m2, by0[i] * by1[j]
                                last = number_of(count2)
                                for start in range(0, last, length(last)):
                                    part = splat(zero)
                                    for g in range(start, min(start + length(last), last)):
                                        k = first2 + g * step2
                                        place, kept_place = (line + k) * channels + c, (line + k) * kept_row + c
                                        part = part + share(dy, kept, place, kept_place, cell, by * by2[k], left)
                                    total, lost = merge(total, lost, part)
                    store(dx, cell_place + c, result(total, lost), left)

    return kernel
