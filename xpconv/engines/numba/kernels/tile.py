"""The register tiles that all matrix work is made of, as LLVM instructions.

Their inner loops hold P × V vectors of sums; `machine.py` says which P and V fit a CPU. Both find their input through
a table of addresses, one for each pixel and kernel cell (the indirect convolution of Dukhan, arXiv:1907.02129), so that
stride, dilation, padding and rank are the table's business and no copy of the input is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.vectors import I64, lane_mask, masked, spread

_ROWS_AHEAD = 16  # rows of weights that are fetched early: unpacked, they lie too far apart for the CPU to foresee
NONE, RELU, RELU6 = 0, 1, 2  # what a tile can do to its sums before it stores them


class Registers:
    """P × V vectors in an LLVM function, and how they are loaded and stored."""

    def __init__(self, builder: Any, dtype: str, rows: int, vectors: int, lanes: int, partial: Any) -> None:
        self.b, self.rows, self.columns, self.lanes = builder, rows, vectors, lanes
        self.number = ir.DoubleType() if dtype == "float64" else ir.FloatType()
        self.size = 8 if dtype == "float64" else 4
        self.kind = ir.VectorType(self.number, lanes)
        self.partial = partial  # how many lanes of the last vector there are, or None: all
        self.mask = None if partial is None else lane_mask(builder, partial, lanes)
        self.sums = [[cgutils.alloca_once(builder, self.kind) for _ in range(vectors)] for _ in range(rows)]
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.kind, [self.kind] * 3), f"llvm.fmuladd.v{lanes}f{8 * self.size}"
        )

    def clear(self) -> None:
        for row in self.sums:
            for place in row:
                self.b.store(ir.Constant(self.kind, [0.0] * self.lanes), place)

    def load(self, address: Any, v: int) -> Any:
        """Vector v of a row of numbers at an address."""
        pointer = self._pointer(address, v)
        if self.mask is not None and v == self.columns - 1:
            function, _ = masked(self.b, self.kind, 8 * self.size)
            align = ir.Constant(ir.IntType(32), self.size)
            return self.b.call(function, [pointer, align, self.mask, ir.Constant(self.kind, [0.0] * self.lanes)])
        value = self.b.load(pointer)
        value.align = self.size
        return value

    def store(self, value: Any, address: Any, v: int) -> None:
        pointer = self._pointer(address, v)
        if self.mask is not None and v == self.columns - 1:
            _, function = masked(self.b, self.kind, 8 * self.size)
            self.b.call(function, [value, pointer, ir.Constant(ir.IntType(32), self.size), self.mask])
        else:
            self.b.store(value, pointer).align = self.size

    def broadcast(self, address: Any) -> Any:
        """The number at an address in all lanes."""
        value = self.b.load(self.b.inttoptr(address, self.number.as_pointer()))
        value.align = self.size
        return spread(self.b, value, self.lanes)

    def step(self, numbers: list[Any], row: Any) -> None:
        """Add the outer product of P numbers, each given by its address, and a row of V vectors."""
        vectors = [self.load(row, v) for v in range(self.columns)]
        for p, number in enumerate(numbers):
            left = self.broadcast(number)
            for v, right in enumerate(vectors):
                place = self.sums[p][v]
                self.b.store(self.b.call(self.fma, [left, right, self.b.load(place)]), place)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.kind, [value] * self.lanes)

    def _pointer(self, address: Any, v: int) -> Any:
        offset = ir.Constant(I64, v * self.lanes * self.size)
        return self.b.inttoptr(self.b.add(address, offset), self.kind.as_pointer())


def word(builder: Any, address: Any, index: Any) -> Any:
    """The 64-bit integer at ``address[index]``."""
    place = builder.add(address, builder.shl(index, ir.Constant(I64, 3)))
    value = builder.load(builder.inttoptr(place, I64.as_pointer()))
    value.align = 8
    return value


def prefetch(builder: Any, address: Any, write: bool = False) -> None:
    """Have the cache line at an address brought near."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, *[ir.IntType(32)] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, near, data = (ir.Constant(ir.IntType(32), value) for value in (int(write), 2, 1))
    builder.call(function, [builder.inttoptr(address, pointer), read, near, data])


def _when(builder: Any, flag: Any) -> Any:
    return builder.if_then(builder.icmp_signed("!=", flag, ir.Constant(I64, 0)))


def product_tile(dtype: str, rows: int, vectors: int, lanes: int, partial: bool) -> Callable[..., Any]:
    """P pixels × V vectors of output channels: sums over some kernel cells t and channels c of x[p, t, c] w[t, c, :].

    Arguments, all integers: ``table`` of input addresses [t][p], ``ahead``, the bytes from its first to the first of the next
    tile, which is fetched meanwhile, and ``taps`` (`fields.Walk`), for
    taps t0 to t1 and channels c0 to c1; ``w``, the address of the first weight row's part, and the bytes from row to row;
    ``outs``, the table of output addresses [p], and bytes to add to them; whether sums go on from what is there; and, if these
    are the last terms, the ``bias`` address (or 0), ``residual`` (bytes from an output to its residual, or 0) and the
    activation; how many of the P pixels are ``kept``; ``left``, the lanes of the last vector.
    """
    size = 8 if dtype == "float64" else 4

    @intrinsic
    def tile(
        typing_context,
        table,
        ahead,
        taps,
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
            table, ahead, taps, t0, t1, c0, c1, w, w_row, outs, offset, more, bias, residual, act, kept, left = args
            b = builder
            registers = Registers(b, dtype, rows, vectors, lanes, left if partial else None)
            registers.clear()
            count = ir.Constant(I64, rows)
            for p in range(rows):
                place = b.add(word(b, outs, ir.Constant(I64, p)), offset)
                for line in range(0, vectors * lanes * size, 64):
                    prefetch(b, b.add(place, ir.Constant(I64, line)), write=True)
            with cgutils.for_range_slice(b, t0, t1, ir.Constant(I64, 1)) as (t, _):
                at = b.mul(t, count)
                inputs = [word(b, table, b.add(at, ir.Constant(I64, p))) for p in range(rows)]
                first_row = b.add(word(b, taps, b.add(b.shl(t, ir.Constant(I64, 2)), ir.Constant(I64, 3))), c0)
                row = cgutils.alloca_once_value(b, b.add(w, b.mul(first_row, w_row)))
                step = ir.Constant(I64, size)
                low, high = b.mul(c0, step), b.mul(c1, step)
                next_tile = b.add(inputs[0], ahead)
                with cgutils.for_range_slice(b, low, high, step) as (c, _):
                    prefetch(b, b.add(next_tile, b.mul(c, count)))
                    later = b.add(b.load(row), b.mul(w_row, ir.Constant(I64, _ROWS_AHEAD)))
                    for line in range(0, vectors * lanes * size, 64):
                        prefetch(b, b.add(later, ir.Constant(I64, line)))
                    registers.step([b.add(x, c) for x in inputs], b.load(row))
                    b.store(b.add(b.load(row), w_row), row)
            for p in range(rows):
                with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), kept)):
                    out = b.add(word(b, outs, ir.Constant(I64, p)), offset)
                    finish(registers, p, out, more, bias, b.add(out, residual), residual, act, offset)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 17), codegen

    return tile


def finish(r: Registers, p: int, out: Any, more: Any, bias: Any, other: Any, residual: Any, act: Any, at: Any) -> None:
    """Add to the sums of a pixel what is due, and store them."""
    b = r.b
    for flag, address in ((more, out), (bias, b.add(bias, at)), (residual, other)):
        with _when(b, flag):
            for v in range(r.columns):
                b.store(b.fadd(b.load(r.sums[p][v]), r.load(address, v)), r.sums[p][v])
    with _when(b, act):
        for v in range(r.columns):
            z = b.load(r.sums[p][v])
            b.store(b.select(b.fcmp_ordered("<", z, r.constant(0.0)), r.constant(0.0), z), r.sums[p][v])
    with b.if_then(b.icmp_signed("==", act, ir.Constant(I64, RELU6))):
        for v in range(r.columns):
            z = b.load(r.sums[p][v])
            b.store(b.select(b.fcmp_ordered(">", z, r.constant(6.0)), r.constant(6.0), z), r.sums[p][v])
    for v in range(r.columns):
        r.store(b.load(r.sums[p][v]), out, v)


def outer_tile(dtype: str, rows: int, vectors: int, lanes: int, partial: bool) -> Callable[..., Any]:
    """P input channels × V vectors of output channels: sums over pixels of x[pixel, c + p] dy[pixel, :].

    Arguments, all integers: ``table`` of input addresses, one for each pixel, ``pixels`` of them, ``stride`` words apart;
    ``offsets``, the table of P byte offsets of the channels; ``dy``, the address of the first pixel's part, and the bytes from pixel to
    pixel; ``out``, where sums are added, the bytes from row to row, and how many rows are kept; ``left``.
    """

    @intrinsic
    def tile(typing_context, table, stride, pixels, ahead, dy_ahead, offsets, dy, dy_row, out, out_row, kept, left):
        def codegen(context, builder, signature, args):
            table, stride, pixels, ahead, dy_ahead, offsets, dy, dy_row, out, out_row, kept, left = args
            b = builder
            registers = Registers(b, dtype, rows, vectors, lanes, left if partial else None)
            registers.clear()
            channels = [word(b, offsets, ir.Constant(I64, p)) for p in range(rows)]
            row = cgutils.alloca_once_value(b, dy)
            with cgutils.for_range(b, pixels) as loop:
                x = word(b, table, b.mul(loop.index, stride))
                prefetch(b, b.add(b.add(x, ahead), channels[0]))
                prefetch(b, b.add(b.load(row), dy_ahead))
                registers.step([b.add(x, channel) for channel in channels], b.load(row))
                b.store(b.add(b.load(row), dy_row), row)
            for p in range(rows):
                with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), kept)):
                    place = b.add(out, b.mul(out_row, ir.Constant(I64, p)))
                    for v in range(vectors):
                        registers.store(b.fadd(registers.load(place, v), b.load(registers.sums[p][v])), place, v)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return tile


def positions(rows: int, run: int, step: int) -> int:
    """Cells in a row of x under P neighbouring pixels, with so many taps side by side."""
    return (rows - 1) * step + run


def channel_tile(
    dtype: str, rows: int, vectors: int, lanes: int, partial: bool, run: int, step: int
) -> Callable[..., Any]:
    """P neighbouring pixels × V vectors of channels, each channel by itself: sums over some tap rows of x[p, t, :] w[t, :].

    A tap row is ``run`` taps side by side; pixels are ``step`` cells apart. Each cell under the pixels is loaded once for all the
    products it is in. Arguments, all integers: ``table`` of cell addresses [tap row][position], ``taps`` (`fields.Walk`), for
    tap rows t0 to t1; ``w_row`` bytes from weight row to weight row, ``w_tap`` from tap to tap of a tap row; ``out``, the address of the first pixel's output, and the bytes from pixel to pixel; ``offset`` in bytes, added
    to input and output addresses; the rest as for `product_tile`.
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
    """One vector of channels, each by itself: for ``taps`` rows of ``run`` taps, sums over pixels of x[pixel, tap, :] dy[pixel, :].

    Pixels come in groups of P neighbours; x is loaded once for all the products it is in, as in `channel_tile`. Arguments, all integers:
    ``table`` of addresses, for each group of positions [tap row][position] and then of the P pixels of dy, ``stride`` words from group
    to group; how many ``groups``; ``offset`` in bytes, added to all addresses; ``out``, where sums are added, the bytes from
    row to row; ``left``.
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
