"""Max pooling: each window's maximum and the cell that won, and back to the winners.

A cell is known by its *code*, the sum of a number for its place on each axis: what windows keep of their winner. Cells
that share a window have different codes, and so a cell has won a window where it finds its own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.pool import Helper, access, gather, helper, of_windows
from xpconv.engines.numba.kernels.vectors import VectorType, choose, vectors

# Codes are as wide as the numbers they are chosen with, until they are kept: the masks of comparisons fit them then.
_INTEGERS = {"float32": "int32", "float64": "int64"}


def _either(typing_context, cell, best, sign):
    def codegen(context, builder, signature, args):
        return builder.or_(builder.fcmp_ordered(sign, *args), builder.fcmp_unordered("!=", args[0], args[0]))

    return VectorType(types.boolean, cell.lanes)(cell, best), codegen


@intrinsic
def _reaches(typing_context, cell, best):
    """Where a cell is at least the best so far, or nan."""
    return _either(typing_context, cell, best, ">=")


@intrinsic
def _equals(typing_context, cell, best):
    """Where a cell is its window's maximum, or nan: then so is that."""
    return _either(typing_context, cell, best, "==")


@intrinsic
def _same(typing_context, codes, code):
    """Where integers are equal."""

    def codegen(context, builder, signature, args):
        return builder.icmp_signed("==", *args)

    return VectorType(types.boolean, codes.lanes)(codes, code), codegen


def forward(
    dtype: str, codes: str, lanes: int, whole: bool, k0: int, k1: int, k2: int, alike: bool, past: bool
) -> Callable[..., Any]:
    """Rows of y, (N, *out, C), and of the winners' codes (none kept if ``codes`` is empty).

    For windows with k0 · k1 · k2 real cells, unless it is 0, the compiler writes out all cells; unless all are
    ``alike``, there are others at the edges. ``past``: y is stored past the caches. Arguments: x, y, codes, plan,
    channels, numbers in a pixel's codes, rows of all images, rows of a task.
    """
    number, integer = number_type(dtype), _INTEGERS[dtype]
    numbers, keeps = pointers(number), pointers(number_type(codes or "uint8"))
    (load, store), keep = access(dtype, lanes, whole, past), _keeper(codes, lanes)
    splat, lowest = vectors(dtype, lanes).splat, number(float("-inf"))
    splat_code, code_type = vectors(integer, lanes).splat, number_type(integer)
    written_out = k0 * k1 * k2 > 0

    @njit(error_model="numpy", inline="always")  # so that the compiler knows the counts
    def look(x, image, axis0, axis1, axis2, first0, first1, first2, count0, count1, count2, channels, c):
        """The maximum of a window for some channels, and the code of the cell that won."""
        (n0, step0, codes0), (n1, step1, codes1), (n2, step2, codes2) = axis0, axis1, axis2
        left = channels - c
        best, won = splat(lowest), splat_code(code_type(0))
        # From the last cell to the first, so that of equals and of nans the first stays.
        for e in range(count0):
            a = first0 + (count0 - 1 - e) * step0
            for f in range(count1):
                b = first1 + (count1 - 1 - f) * step1
                line, above = ((image * n0 + a) * n1 + b) * n2, codes0[a] + codes1[b]
                for g in range(count2):
                    d = first2 + (count2 - 1 - g) * step2
                    cell = load(x, (line + d) * channels + c, left)
                    new = _reaches(cell, best)
                    best = choose(new, cell, best)
                    won = choose(new, splat_code(code_type(above + codes2[d])), won)
        return best, won

    def kernel(args, task, slot):
        x, y, kept, plan = numbers(args[0]), numbers(args[1]), keeps(args[2]), words(args[3])
        channels, code_row, rows, each = args[4], args[5], args[6], args[7]
        n0, m0, cells0, step0, codes0, _ = of_windows(plan, 0)
        n1, m1, cells1, step1, codes1, _ = of_windows(plan, 1)
        n2, m2, cells2, step2, codes2, _ = of_windows(plan, 2)
        p, q, r = (n0, step0, codes0), (n1, step1, codes1), (n2, step2, codes2)
        for row in range(task * each, min(rows, (task + 1) * each)):
            image, i, j = row // (m0 * m1), row // m1 % m0, row % m1
            first0, count0, first1, count1 = cells0[2 * i], cells0[2 * i + 1], cells1[2 * j], cells1[2 * j + 1]
            for k in range(m2):
                first2, count2 = cells2[2 * k], cells2[2 * k + 1]
                pixel = row * m2 + k
                usual = written_out and (alike or (count0 == k0 and count1 == k1 and count2 == k2))
                for c in range(0, channels, lanes):
                    if usual:
                        best, won = look(x, image, p, q, r, first0, first1, first2, k0, k1, k2, channels, c)
                    else:
                        best, won = look(x, image, p, q, r, first0, first1, first2, count0, count1, count2, channels, c)
                    store(y, pixel * channels + c, best, channels - c)
                    keep(kept, pixel * code_row + c, won)

    return kernel


def _keeper(codes: str, lanes: int) -> Helper:
    """Stores codes as the integers that are kept; or nothing."""
    kept_type = number_type(codes or "uint8")
    vector, store = VectorType(kept_type, lanes), vectors(codes or "uint8", lanes).store

    @intrinsic
    def narrow(typing_context, won):
        def codegen(context, builder, signature, args):
            to = context.get_value_type(vector)
            return builder.trunc(args[0], to) if to != args[0].type else args[0]

        return vector(won), codegen

    def keep(kept, place, won):
        store(kept, place, narrow(won))

    def drop(kept, place, won):
        return

    return helper(keep if codes else drop)


def backward_to_first(dtype: str, codes: str, lanes: int, whole: bool, alone: bool, run: int) -> Callable[..., Any]:
    """`gather` of dy from the windows that a cell won: those that keep its code."""
    code_type, zero = number_type(codes), number_type(dtype)(0)
    load_codes, splat_code = vectors(codes, lanes).load, vectors(codes, lanes).splat
    load, splat = access(dtype, lanes, whole)[0], vectors(dtype, lanes).splat

    def own(x, place, code, left):
        return splat_code(code_type(code))

    def share(dy, kept, place, kept_place, code, by, left):
        return choose(_same(load_codes(kept, kept_place), code), load(dy, place, left), splat(zero))

    return gather(dtype, codes, lanes, whole, alone, run, helper(own), helper(share))


def backward_to_all(dtype: str, lanes: int, whole: bool, alone: bool, run: int) -> Callable[..., Any]:
    """`gather` of dy from the windows whose maximum a cell equals: y is what they keep."""
    zero = number_type(dtype)(0)
    load, splat = access(dtype, lanes, whole)[0], vectors(dtype, lanes).splat

    def own(x, place, code, left):
        return load(x, place, left)

    def share(dy, y, place, y_place, cell, by, left):
        return choose(_equals(cell, load(y, y_place, left)), load(dy, place, left), splat(zero))

    return gather(dtype, dtype, lanes, whole, alone, run, helper(own), helper(share))
