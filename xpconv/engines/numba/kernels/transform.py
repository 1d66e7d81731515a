"""Winograd's transforms of patches, as LLVM instructions: M X Mᵀ for small constant matrices M, on vectors of channels.

A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016 (arXiv:1509.09308). A tile of y is
Y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A; the weight gradient is the transpose of that in w, Gᵀ [(A dy Aᵀ) ⊙ (Bᵀ x B)] G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.registers import Registers, finish, word
from xpconv.engines.numba.kernels.vectors import I64

Matrix = tuple[tuple[float, ...], ...]


class Form(NamedTuple):
    """The matrices of F(m × m, 3 × 3): patches of (m + 2)² cells for m² outputs."""

    input: Matrix  # Bᵀ
    weight: Matrix  # G
    output: Matrix  # Aᵀ


# Interpolation at 0, 1, -1 and infinity; and at 0, ±1, ±2 and infinity.
FORMS = {
    2: Form(
        input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        weight=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        output=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Form(
        input=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        weight=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _combine(r: Registers, row: tuple[float, ...], values: list[Any]) -> Any:
    """Σ factor · value, without the zeros and without multiplying by ±1."""
    b, total = r.b, None
    for factor, value in zip(row, values, strict=True):
        if factor == 0:
            continue
        if total is None:
            total = value if factor == 1 else b.fmul(value, r.constant(factor))
        elif abs(factor) == 1:
            total = b.fadd(total, value) if factor == 1 else b.fsub(total, value)
        else:
            total = b.call(r.fma, [value, r.constant(factor), total])
    return total


def _applied(r: Registers, matrix: Matrix, patch: list[list[Any]]) -> list[list[Any]]:
    """M X Mᵀ."""
    columns = [[_combine(r, row, [line[j] for line in patch]) for j in range(len(patch))] for row in matrix]
    return [[_combine(r, row, line) for row in matrix] for line in columns]


def transform(matrix: Matrix, dtype: str, lanes: int) -> Callable[..., Any]:
    """Take a patch whose n² cells are at the addresses in a table, plus an offset, to m² places: at an address, and
    every so many bytes after it.
    """
    n, m = len(matrix[0]), len(matrix)

    @intrinsic
    def apply(typing_context, table, offset, target, plane):
        def codegen(context, builder, signature, args):
            table, offset, target, plane = args
            r = Registers(builder, dtype, 0, 1, lanes, None)
            cells = [builder.add(word(builder, table, ir.Constant(I64, i)), offset) for i in range(n * n)]
            patch = [[r.load(cells[i * n + j], 0) for j in range(n)] for i in range(n)]
            for i, line in enumerate(_applied(r, matrix, patch)):
                for j, value in enumerate(line):
                    r.store(value, builder.add(target, builder.mul(plane, ir.Constant(I64, i * m + j))), 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return apply


def transform_back(matrix: Matrix, dtype: str, lanes: int) -> Callable[..., Any]:
    """Take n² planes, at an address and every so many bytes after it, to m² places: a table's addresses, plus an
    offset.

    A place whose address is 0 is left out. ``bias``, ``residual`` and ``act`` are as in `tile.product_tile`; ``more``:
    add to what is there.
    """
    n, m = len(matrix[0]), len(matrix)

    @intrinsic
    def apply(typing_context, source, plane, table, offset, more, bias, residual, act):
        def codegen(context, builder, signature, args):
            source, plane, table, offset, more, bias, residual, act = args
            b = builder
            r = Registers(b, dtype, m * m, 1, lanes, None)
            planes = [b.add(source, b.mul(plane, ir.Constant(I64, i))) for i in range(n * n)]
            patch = [[r.load(planes[i * n + j], 0) for j in range(n)] for i in range(n)]
            for i, line in enumerate(_applied(r, matrix, patch)):
                for j, value in enumerate(line):
                    b.store(value, r.sums[i * m + j][0])
            for i in range(m * m):
                place = word(b, table, ir.Constant(I64, i))
                with b.if_then(b.icmp_signed("!=", place, ir.Constant(I64, 0))):
                    out = b.add(place, offset)
                    finish(r, i, out, more, bias, b.add(out, residual), residual, act, offset)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return apply
