"""The transforms of Winograd's forms, as LLVM instructions: small constant matrices applied along the three axes of a
patch, on vectors of channels.

A tile of y is Y = Aᵀ [(G w) ⊙ (Bᵀ x)], each matrix along each axis; the weight gradient is the transpose of that in w,
Gᵀ [(A dy) ⊙ (Bᵀ x)]. `forms` has the matrices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.engines.numba.forms import Matrix, Row
from xpconv.engines.numba.kernels.registers import Registers, finish, word
from xpconv.engines.numba.kernels.vectors import I64


def _combine(r: Registers, row: Row, value: Callable[[int], Any]) -> Any:
    """Σ factor · value, without the zeros and without multiplying by ±1."""
    b, total = r.b, None
    for i, factor in enumerate(row):
        if factor == 0:
            continue
        if total is None:
            total = value(i) if factor == 1 else b.fmul(value(i), r.constant(factor))
        elif abs(factor) == 1:
            total = b.fadd(total, value(i)) if factor == 1 else b.fsub(total, value(i))
        else:
            total = b.call(r.fma, [value(i), r.constant(factor), total])
    return total


def _applied(r: Registers, matrices: Sequence[Matrix], value: Callable[..., Any]) -> Iterator[Any]:
    """Matrices along the axes of a patch of values, in row-major order; a value is asked for when it is first needed,
    so that few of them are in registers at a time.
    """
    if not matrices:
        yield value()
        return
    for row in matrices[0]:

        @functools.cache
        def combined(*rest: int, row: Row = row) -> Any:
            return _combine(r, row, lambda i: value(i, *rest))

        yield from _applied(r, matrices[1:], combined)


def _flat(matrices: Sequence[Matrix]) -> Callable[..., int]:
    """The number of a cell of a patch that matrices are applied to."""
    _, second, third = (len(matrix[0]) for matrix in matrices)
    return lambda i, j, k: (i * second + j) * third + k


def transform(matrices: Sequence[Matrix], places: Sequence[int], dtype: str, lanes: int) -> Callable[..., Any]:
    """Take a patch whose cells are at the addresses in a table, plus an offset, through matrices to an address: the
    i-th result so many bytes times ``places[i]`` after it.
    """
    flat = _flat(matrices)

    @intrinsic
    def apply(typing_context, table, offset, target, plane):
        def codegen(context, builder, signature, args):
            table, offset, target, plane = args
            r = Registers(builder, dtype, 0, 1, lanes, None)

            @functools.cache
            def cell(*at):
                return r.load(builder.add(word(builder, table, ir.Constant(I64, flat(*at))), offset), 0)

            for where, value in zip(places, _applied(r, matrices, cell), strict=True):
                r.store(value, builder.add(target, builder.mul(plane, ir.Constant(I64, where))), 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return apply


def transform_back(matrices: Sequence[Matrix], places: Sequence[int], dtype: str, lanes: int) -> Callable[..., Any]:
    """Take values, the i-th of them so many bytes times ``places[i]`` after an address, through matrices to a table's
    addresses, plus an offset.

    A place whose address is 0 is left out. ``bias``, ``residual`` and ``act`` are as in `tile.product_tile`; ``more``:
    add to what is there.
    """
    flat, results = _flat(matrices), math.prod(len(matrix) for matrix in matrices)

    @intrinsic
    def apply(typing_context, source, plane, table, offset, more, bias, residual, act):
        def codegen(context, builder, signature, args):
            source, plane, table, offset, more, bias, residual, act = args
            b = builder
            r = Registers(b, dtype, results, 1, lanes, None)

            @functools.cache
            def number(*at):
                return r.load(b.add(source, b.mul(plane, ir.Constant(I64, places[flat(*at)]))), 0)

            for i, value in enumerate(_applied(r, matrices, number)):
                b.store(value, r.sums[i][0])
            for i in range(results):
                place = word(b, table, ir.Constant(I64, i))
                with b.if_then(b.icmp_signed("!=", place, ir.Constant(I64, 0))):
                    out = b.add(place, offset)
                    finish(r, i, out, more, bias, b.add(out, residual), residual, act, offset)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return apply
