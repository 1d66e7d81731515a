"""The register tiles of depthwise convolution: neighbours in a row, which share cells, channels in the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.registers import Registers, finish, word
from xpconv.engines.numba.kernels.vectors import I64


def positions(rows: int, run: int, step: int) -> int:
    """Cells in a row of x under P neighbouring pixels, with so many taps side by side."""
    return (rows - 1) * step + run


def channel_tile(
    dtype: str, rows: int, vectors: int, lanes: int, partial: bool, run: int, step: int
) -> Callable[..., Any]:
    """P neighbouring pixels × V vectors of channels, each channel by itself: sums over some tap rows of x[p, t, :] w[t,
    :].

    A tap row is ``run`` taps side by side; pixels are ``step`` cells apart. Each cell under the pixels is loaded once
    for all the products it is in. Arguments, all integers: ``table`` of cell addresses [tap row][position], ``taps``
    (`fields.Walk`), for tap rows t0 to t1; ``w_row`` bytes from weight row to weight row, ``w_tap`` from tap to tap of
    a tap row; ``out``, the address of the first pixel's output, and the bytes from pixel to pixel; ``offset`` in bytes,
    added to input and output addresses; the rest as for `product_tile`.
    """
    count = positions(rows, run, step)

    @intrinsic
    def tile(
        typing_context,
        table,
        taps,
        t0,
        t1,
        w,
        w_row,
        w_tap,
        out,
        out_row,
        offset,
        more,
        bias,
        residual,
        act,
        kept,
        left,
    ):
        def codegen(context, builder, signature, args):
            table, taps, t0, t1, w, w_row, w_tap, out, out_row, offset, more, bias, residual, act, kept, left = args
            b = builder
            r = Registers(b, dtype, rows, vectors, lanes, left if partial else None)
            r.clear()
            with cgutils.for_range_slice(b, t0, t1, ir.Constant(I64, 1)) as (t, _):
                cells = b.add(table, b.mul(t, ir.Constant(I64, 8 * count)))
                first = word(b, taps, b.add(b.mul(t, ir.Constant(I64, 4 * run)), ir.Constant(I64, 3)))
                row = b.add(w, b.mul(first, w_row))
                weights = []
                for k in range(run):
                    at = b.add(row, b.mul(w_tap, ir.Constant(I64, k)))
                    weights.append([r.load(at, v) for v in range(vectors)])
                for q in range(count):
                    uses = [(p, q - p * step) for p in range(rows) if 0 <= q - p * step < run]
                    if uses:
                        cell = b.add(word(b, cells, ir.Constant(I64, q)), offset)
                        for v in range(vectors):
                            x = r.load(cell, v)
                            for p, k in uses:
                                place = r.sums[p][v]
                                b.store(b.call(r.fma, [x, weights[k][v], b.load(place)]), place)
            first = b.add(out, offset)
            for p in range(rows):
                with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), kept)):
                    place = b.add(first, b.mul(out_row, ir.Constant(I64, p)))
                    finish(r, p, place, more, bias, b.add(place, residual), residual, act, offset)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 16), codegen

    return tile


def channel_outer_tile(
    dtype: str, rows: int, taps: int, lanes: int, partial: bool, run: int, step: int
) -> Callable[..., Any]:
    """One vector of channels, each by itself: for ``taps`` rows of ``run`` taps, sums over pixels of x[pixel, tap, :]
    dy[pixel, :].

    Pixels come in groups of P neighbours; x is loaded once for all the products it is in, as in `channel_tile`.
    Arguments, all integers: ``table`` of addresses, for each group of positions [tap row][position] and then of the P
    pixels of dy, ``stride`` words from group to group; how many ``groups``; ``offset`` in bytes, added to all
    addresses; ``out``, where sums are added, the bytes from row to row; ``left``.
    """
    count = positions(rows, run, step)

    @intrinsic
    def tile(typing_context, table, stride, groups, offset, out, out_row, left):
        def codegen(context, builder, signature, args):
            table, stride, groups, offset, out, out_row, left = args
            b = builder
            r = Registers(b, dtype, taps * run, 1, lanes, left if partial else None)
            r.clear()
            with cgutils.for_range(b, groups) as loop:
                at = b.add(table, b.shl(b.mul(loop.index, stride), ir.Constant(I64, 3)))

                def vector(index, at=at):
                    return r.load(b.add(word(b, at, ir.Constant(I64, index)), offset), 0)

                dy = [vector(taps * count + p) for p in range(rows)]
                for t in range(taps):
                    for q in range(count):
                        uses = [(p, q - p * step) for p in range(rows) if 0 <= q - p * step < run]
                        if uses:
                            x = vector(t * count + q)
                            for p, k in uses:
                                place = r.sums[t * run + k][0]
                                b.store(b.call(r.fma, [x, dy[p], b.load(place)]), place)
            for i in range(taps * run):
                place = b.add(out, b.mul(out_row, ir.Constant(I64, i)))
                r.store(b.fadd(r.load(place, 0), b.load(r.sums[i][0])), place, 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return tile
