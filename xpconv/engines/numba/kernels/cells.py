"""Where the cells under a block of taps are: at the edges of an image too, without tables and without copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from xpconv.engines.numba.kernels.registers import word
from xpconv.engines.numba.kernels.vectors import I64
from xpconv.engines.numba.kernels.walk import SIZE0, SIZE1, SIZE2, X0, X1, X2, ZEROS


class Taps(NamedTuple):
    """What is known of a pass when its tiles are compiled: taps in blocks of neighbours, and how far pixels are apart.

    A block is some tap rows below one another, each a run of taps side by side. A pixel may stand for several outputs
    beside one another (`plan.Pass.up`), all of which are counted here.
    """

    tap_rows: int
    run: int
    line_step: int  # cells from a line of pixels to the next
    step: int  # and from pixel to pixel
    up: tuple[int, int] = (1, 1)  # outputs of a pixel on the last two axes
    shift: tuple[int, int] = (0, 0)

    @property
    def number(self) -> int:
        """Taps of a block."""
        return self.tap_rows * self.run

    def positions(self, rows: int) -> int:
        """Cells in a row of x under P neighbouring pixels."""
        return _reach(rows, self.step, self.run, self.up[1], self.shift[1])

    def depth(self, lines: int) -> int:
        """Rows of x under L lines of pixels."""
        return _reach(lines, self.line_step, self.tap_rows, self.up[0], self.shift[0])

    def met(self, rows: int, q: int) -> list[tuple[int, int]]:
        """Which outputs of P neighbouring pixels see the cell at a position, and by which tap of a row."""
        return _meetings(rows, self.step, self.run, self.up[1], self.shift[1], q)

    def lines_met(self, lines: int, row: int) -> list[tuple[int, int]]:
        """Which lines of outputs of L lines of pixels see a row of cells, and by which tap row."""
        return _meetings(lines, self.line_step, self.tap_rows, self.up[0], self.shift[0], row)


def _reach(pixels: int, step: int, taps: int, up: int, shift: int) -> int:
    """Cells on one axis under neighbouring pixels."""
    return (pixels - 1) * step + (taps - 1 + up - 1 - shift) // up + 1


def _meetings(pixels: int, step: int, taps: int, up: int, shift: int, q: int) -> list[tuple[int, int]]:
    """Which outputs of neighbouring pixels see the q-th of those cells, and by which tap."""
    seen = [(p * up + r, up * (q - p * step) - r + shift) for p in range(pixels) for r in range(up)]
    return [(output, tap) for output, tap in seen if 0 <= tap < taps]


def constant(number: int) -> Any:
    return ir.Constant(I64, number)


class Fields:
    """The integers of a kernel's ``args``, loaded where they are asked for."""

    def __init__(self, builder: Any, args: Any) -> None:
        self.b, self.args = builder, builder.ptrtoint(args, I64)

    def __getitem__(self, index: int) -> Any:
        return word(self.b, self.args, constant(index))


class Cells:
    """x as seen from a line of pixels, in LLVM's language: what does not change along the line is computed once."""

    def __init__(self, builder: Any, fields: Fields, image: Any, i: Any, j: Any) -> None:
        """``image`` is the address of an image in x; the line's first cells, but for taps' offsets, are at (i, j)."""
        self.b, self.image, self.i, self.j = builder, image, i, j
        self.sizes = [fields[name] for name in (SIZE0, SIZE1, SIZE2)]
        self.strides = [fields[name] for name in (X0, X1, X2)]
        self.zeros = fields[ZEROS]

    def under(self, tap: Any) -> Block:
        """The cells under a block of taps, by the address of the first in `fields.Walk`'s table."""
        return Block(self, [word(self.b, tap, constant(axis)) for axis in range(3)])


class Block:
    """The cells under a block of taps."""

    def __init__(self, cells: Cells, offsets: list[Any]) -> None:
        b = self.b = cells.b
        self.of, self.column_offset = cells, offsets[2]
        plane, self.line = b.add(cells.i, offsets[0]), b.add(cells.j, offsets[1])
        self.in_plane = b.icmp_unsigned("<", plane, cells.sizes[0])
        self.first = b.add(cells.image, b.add(b.mul(plane, cells.strides[0]), b.mul(self.line, cells.strides[1])))

    def beyond(self, offset: Any) -> Block:
        """The same, so many bytes from the first channel on."""
        other = copy.copy(self)
        other.first = self.b.add(self.first, offset)
        return other

    def in_row(self, row: int) -> Any:
        """Whether the row of cells so many below the first is there."""
        inside = self.b.icmp_unsigned("<", self.b.add(self.line, constant(row)), self.of.sizes[1])
        return self.b.and_(self.in_plane, inside)

    def column(self, k: Any) -> Any:
        """The column of the first cell under a pixel, by the pixel's own in cells."""
        return self.b.add(k, self.column_offset)

    def whole(self, column: Any, count: int) -> Any:
        """Whether so many cells in a row, from a column on, are inside."""
        b = self.b
        end = b.add(column, constant(count))
        return b.and_(b.icmp_signed(">=", column, constant(0)), b.icmp_signed("<=", end, self.of.sizes[2]))

    def places(self, row: int, column: Any, whole: bool) -> Callable[[int], Any]:
        """A function to the address of the q-th cell from a column on, in a row that is there.

        Unless they are ``whole``, cells beside the image are zeros.
        """
        b, cell = self.b, self.of.strides[2]
        start = b.add(b.add(self.first, b.mul(self.of.strides[1], constant(row))), b.mul(column, cell))

        def place(q: int) -> Any:
            at = b.add(start, b.mul(cell, constant(q)))
            if whole:
                return at
            inside = b.icmp_unsigned("<", b.add(column, constant(q)), self.of.sizes[2])
            return b.select(inside, at, self.of.zeros)

        return place
