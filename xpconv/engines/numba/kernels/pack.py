"""Weights laid out anew: transposed, with the kernel's cells in reverse order, as an input gradient reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from xpconv.engines.numba.fields import Pack
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.vectors import I32, I64

(W, OUT, CELLS, GROUPS, IN_CHANNELS, OUT_CHANNELS, STRIP) = range(len(Pack._fields))


def transpose_square(dtype: str, lanes: int) -> Callable[..., Any]:
    """Move lanes × lanes numbers from one address to another, rows for columns, with the bytes from row to row of each.

    Step s exchanges, between rows i and i + s, the halves of each group of 2 s lanes; log2(lanes) steps do it all.
    """
    size = 8 if dtype == "float64" else 4

    @intrinsic
    def move(typing_context, source, source_row, target, target_row):
        def codegen(context, builder, signature, args):
            source, source_row, target, target_row = args
            b = builder
            kind = ir.VectorType(ir.DoubleType() if dtype == "float64" else ir.FloatType(), lanes)

            def at(base, row, i):
                return b.inttoptr(b.add(base, b.mul(row, ir.Constant(I64, i))), kind.as_pointer())

            rows = []
            for i in range(lanes):
                value = b.load(at(source, source_row, i))
                value.align = size
                rows.append(value)
            s = 1
            while s < lanes:
                low = [j if not j & s else lanes + j - s for j in range(lanes)]
                high = [j + s if not j & s else lanes + j for j in range(lanes)]
                for i in range(lanes):
                    if not i & s:
                        first, second = rows[i], rows[i + s]
                        index = ir.VectorType(I32, lanes)
                        rows[i] = b.shuffle_vector(first, second, ir.Constant(index, low))
                        rows[i + s] = b.shuffle_vector(first, second, ir.Constant(index, high))
                s *= 2
            for i in range(lanes):
                b.store(rows[i], at(target, target_row, i)).align = size
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return move


def mover(dtype, lanes):
    """The function that moves a matrix, rows for columns, with the bytes from row to row of each."""
    size = 8 if dtype == "float64" else 4
    square = transpose_square(dtype, lanes)
    numbers = pointers(number_type(dtype))

    @njit
    def matrix(source, source_row, target, target_row, rows, columns):
        if rows < lanes or columns < lanes:
            for i in range(rows):
                row = numbers(source + i * source_row)
                for j in range(columns):
                    numbers(target + j * target_row)[i] = row[j]
            return
        for i in range(0, rows, lanes):
            a = min(i, rows - lanes)  # the last squares overlap those before
            for j in range(0, columns, lanes):
                b = min(j, columns - lanes)
                square(source + a * source_row + b * size, source_row, target + b * target_row + a * size, target_row)

    return matrix


def transpose(dtype, lanes):
    """(cells, C / groups, O) -> (cells in reverse order, O / groups, C); a task: some outputs of a cell and group."""
    size = 8 if dtype == "float64" else 4
    matrix = mover(dtype, lanes)

    def kernel(args, task, slot):
        c, o, strip = args[IN_CHANNELS], args[OUT_CHANNELS], args[STRIP]
        strips = -(-o // strip)
        first = task % strips * strip
        group = task // strips % args[GROUPS]
        cell = task // (strips * args[GROUPS])
        all_c, all_o = c * args[GROUPS], o * args[GROUPS]
        source = args[W] + (cell * c * all_o + group * o + first) * size
        target = args[OUT] + (((args[CELLS] - 1 - cell) * o + first) * all_c + group * c) * size
        matrix(source, all_o * size, target, all_c * size, c, min(strip, o - first))

    return kernel
