"""The register tiles that all matrix work is made of, as LLVM instructions.

Their inner loops hold P × V vectors of sums; `machine.py` says which P and V fit a CPU. Both find their input through
a table of addresses, one for each pixel and kernel cell (the indirect convolution of Dukhan, arXiv:1907.02129), so that
stride, dilation, padding and rank are the table's business and no copy of the input is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.registers import Registers, finish, prefetch, word
from xpconv.engines.numba.kernels.vectors import I64

_ROWS_AHEAD = 16  # rows of weights that are fetched early: unpacked, they lie too far apart for the CPU to foresee


def _either(b: Any, wide: Any, vectors: int, tail: int, emit: Callable[[int, bool], None]) -> None:
    """A tile of a whole block of vectors, one of the tail, or both and a branch: as output channels fall into them."""
    if vectors and tail:
        with b.if_else(b.icmp_signed("!=", wide, ir.Constant(I64, 0))) as (whole, rest):
            with whole:
                emit(vectors, False)
            with rest:
                emit(tail, True)
    else:
        emit(vectors or tail, not vectors)


def product_tile(
    dtype: str, rows: int, vectors: int, tail: int, lanes: int, partial: bool, near: bool = False
) -> Callable[..., Any]:
    """P pixels × V vectors of output channels: sums over some kernel cells t and channels c of x[p, t, c] w[t, c, :].

    V is ``vectors`` or, in what they leave, ``tail``, whose last vector may be partial. Arguments, all integers:
    ``wide``, whether V is ``vectors``; ``table`` of input addresses [t][p] and ``x_offset``, the bytes from there to
    the first channel, ``ahead``, the bytes from its first to the first of the next tile, which is fetched meanwhile,
    ``taps`` and ``zeros`` (`fields.Walk`), for taps t0 to t1 and channels c0 to c1, but for taps under which all P
    pixels see zeros; ``w``, the address of the first weight row's part, and the bytes from row to row; ``outs``, the
    table of output addresses [p], and bytes to add to them; whether sums go on from what is there; and, if these are
    the last terms, the ``bias`` address (or 0), ``residual`` (bytes from an output to its residual, or 0) and the
    activation; how many of the P pixels are ``kept``; ``left``, the lanes of a tail's last vector.
    """
    size = 8 if dtype == "float64" else 4

    def emit(b, args, vectors, ragged):
        table, x_offset, ahead, taps, zeros, *others = args
        t0, t1, c0, c1, w, w_row, outs, offset, more, bias, residual, act, kept, left = others
        registers = Registers(b, dtype, rows, vectors, lanes, left if ragged else None)
        registers.clear()
        count = ir.Constant(I64, rows)
        lines = () if near else range(0, vectors * lanes * size, 64)
        for p in range(rows):
            place = b.add(word(b, outs, ir.Constant(I64, p)), offset)
            for line in lines:
                prefetch(b, b.add(place, ir.Constant(I64, line)), write=True)
        with cgutils.for_range_slice(b, t0, t1, ir.Constant(I64, 1)) as (t, _):
            at = b.mul(t, count)
            inputs = [word(b, table, b.add(at, ir.Constant(I64, p))) for p in range(rows)]
            seen = functools.reduce(b.or_, [b.icmp_signed("!=", x, zeros) for x in inputs])
            with b.if_then(seen):
                first_row = b.add(word(b, taps, b.add(b.shl(t, ir.Constant(I64, 2)), ir.Constant(I64, 3))), c0)
                row = cgutils.alloca_once_value(b, b.add(w, b.mul(first_row, w_row)))
                step = ir.Constant(I64, size)
                low, high = b.mul(c0, step), b.mul(c1, step)
                inputs = [b.add(x, x_offset) for x in inputs]
                next_tile = b.add(inputs[0], ahead)
                with cgutils.for_range_slice(b, low, high, step) as (c, _):
                    if not near:
                        prefetch(b, b.add(next_tile, b.mul(c, count)))
                    later = b.add(b.load(row), b.mul(w_row, ir.Constant(I64, _ROWS_AHEAD)))
                    for line in lines:
                        prefetch(b, b.add(later, ir.Constant(I64, line)))
                    registers.step([b.add(x, c) for x in inputs], b.load(row))
                    b.store(b.add(b.load(row), w_row), row)
        for p in range(rows):
            with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), kept)):
                out = b.add(word(b, outs, ir.Constant(I64, p)), offset)
                finish(registers, p, out, more, bias, b.add(out, residual), residual, act, offset)

    @intrinsic
    def tile(
        typing_context,
        wide,
        table,
        x_offset,
        ahead,
        taps,
        zeros,
        t0,
        t1,
        c0,
        c1,
        w,
        w_row,
        outs,
        offset,
        more,
        bias,
        residual,
        act,
        kept,
        left,
    ):
        def codegen(context, builder, signature, args):
            wide, *words = args
            _either(builder, wide, vectors, tail, lambda count, rest: emit(builder, words, count, rest and partial))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 20), codegen

    return tile


def outer_tile(
    dtype: str, rows: int, vectors: int, tail: int, lanes: int, partial: bool, near: bool = False
) -> Callable[..., Any]:
    """P input channels × V vectors of output channels: sums over pixels of x[pixel, c + p] dy[pixel, :].

    V as in `product_tile`. Arguments, all integers: ``wide``; ``table`` of input addresses, one for each pixel,
    ``pixels`` of them, ``stride`` words apart, and ``x_offset``, the bytes from there to channel c; ``ahead`` and
    ``dy_ahead``, the bytes to what will be wanted of x and dy in the next block of pixels, fetched meanwhile; ``dy``,
    the address of the first pixel's part, and the bytes from pixel to pixel; ``out``, where the sums go, the bytes from
    row to row, how many rows to ``skip``, and whether they are added to what is there; ``left``. Where all is ``near``,
    nothing is fetched.
    """

    def emit(b, args, vectors, ragged):
        table, x_offset, stride, pixels, ahead, dy_ahead, dy, dy_row, out, out_row, skip, more, left = args
        registers = Registers(b, dtype, rows, vectors, lanes, left if ragged else None)
        registers.clear()
        channels = [ir.Constant(I64, p * registers.size) for p in range(rows)]
        row = cgutils.alloca_once_value(b, dy)
        with cgutils.for_range(b, pixels) as loop:
            x = b.add(word(b, table, b.mul(loop.index, stride)), x_offset)
            if not near:
                prefetch(b, b.add(x, ahead))
                prefetch(b, b.add(b.load(row), dy_ahead))
            registers.step([b.add(x, channel) for channel in channels], b.load(row))
            b.store(b.add(b.load(row), dy_row), row)
        for p in range(rows):
            with b.if_then(b.icmp_signed(">=", ir.Constant(I64, p), skip)):
                place = b.add(out, b.mul(out_row, ir.Constant(I64, p)))
                with b.if_then(b.icmp_signed("!=", more, ir.Constant(I64, 0))):
                    for v in range(vectors):
                        total = b.fadd(registers.load(place, v), b.load(registers.sums[p][v]))
                        b.store(total, registers.sums[p][v])
                for v in range(vectors):
                    registers.store(b.load(registers.sums[p][v]), place, v)

    @intrinsic
    def tile(
        typing_context,
        wide,
        table,
        x_offset,
        stride,
        pixels,
        ahead,
        dy_ahead,
        dy,
        dy_row,
        out,
        out_row,
        skip,
        more,
        left,
    ):
        def codegen(context, builder, signature, args):
            wide, *words = args
            _either(builder, wide, vectors, tail, lambda count, rest: emit(builder, words, count, rest and partial))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return tile
