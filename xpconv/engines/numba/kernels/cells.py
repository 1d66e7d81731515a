"""Where the cells under a block of taps are: at the edges of an image too, without tables and without copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from xpconv.engines.numba.kernels.registers import word
from xpconv.engines.numba.kernels.vectors import I64
from xpconv.engines.numba.kernels.walk import SIZE0, SIZE1, SIZE2, X0, X1, X2, ZEROS


class Taps(NamedTuple):
    """What is known of a pass when its tiles are compiled: taps in blocks of neighbours, and how far pixels are apart.

    A block is some tap rows below one another, each a run of taps side by side.
    """

    tap_rows: int
    run: int
    line_step: int  # cells from a line of pixels to the next
    step: int  # and from pixel to pixel

    def positions(self, rows: int) -> int:
        """Cells in a row of x under P neighbouring pixels."""
        return (rows - 1) * self.step + self.run

    def met(self, rows: int, q: int) -> list[tuple[int, int]]:
        """Which of P neighbouring pixels see the cell at a position, and by which tap of a row."""
        return [(p, q - p * self.step) for p in range(rows) if 0 <= q - p * self.step < self.run]


def constant(number: int) -> Any:
    return ir.Constant(I64, number)


class Fields:
    """The integers of a kernel's ``args``, loaded where they are asked for."""

    def __init__(self, builder: Any, args: Any) -> None:
        self.b, self.args = builder, builder.ptrtoint(args, I64)

    def __getitem__(self, index: int) -> Any:
        return word(self.b, self.args, constant(index))


class Block:
    """The cells of x under one block of taps, seen from a pixel: in LLVM's language, for one builder."""

    def __init__(self, builder: Any, args: Any, tap: Any) -> None:
        """``tap`` is the address of the block's first tap in `fields.Walk`'s table."""
        self.b, self.args = builder, Fields(builder, args)
        self.offsets = [word(builder, tap, constant(axis)) for axis in range(3)]
        self.weight_row = word(builder, tap, constant(3))

    def see(self, image: Any, i: Any, j: Any, k: Any) -> None:
        """Stand at the pixel whose first cell, but for the tap's offset, is (i, j, k)."""
        b, args = self.b, self.args
        first = [b.add(at, offset) for at, offset in zip((i, j, k), self.offsets, strict=True)]
        _, self.line, self.column = first
        self.in_plane = b.icmp_unsigned("<", first[0], args[SIZE0])
        strides = [args[X0], args[X1], args[X2]]
        self.place = functools.reduce(b.add, [b.mul(at, s) for at, s in zip(first, strides, strict=True)], image)
        self.row_stride, self.cell = strides[1:]

    def whole(self, count: int) -> Any:
        """Whether so many cells in a row are all inside, as far as columns go."""
        b = self.b
        end = b.add(self.column, constant(count))
        return b.and_(b.icmp_signed(">=", self.column, constant(0)), b.icmp_signed("<=", end, self.args[SIZE2]))

    def in_row(self, line: int) -> Any:
        """Whether the line of cells so many below the first is there."""
        b = self.b
        return b.and_(self.in_plane, b.icmp_unsigned("<", b.add(self.line, constant(line)), self.args[SIZE1]))

    def cells(self, line: int, whole: bool) -> Callable[[int], Any]:
        """A function from a position to a cell's address in a line; unless all are ``whole``, some see zeros."""
        b = self.b
        row = b.add(self.place, b.mul(self.row_stride, constant(line)))

        def cell(q: int) -> Any:
            place = b.add(row, b.mul(self.cell, constant(q)))
            if whole:
                return place
            inside = b.icmp_unsigned("<", b.add(self.column, constant(q)), self.args[SIZE2])
            return b.select(inside, place, self.args[ZEROS])

        return cell
