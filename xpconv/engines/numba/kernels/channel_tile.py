"""The register tiles of depthwise convolution: neighbours in lines, which share cells; channels in the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.fields import TAP_BLOCK, Depthwise
from xpconv.engines.numba.kernels.cells import Block, Cells, Fields, Taps, constant
from xpconv.engines.numba.kernels.memory import WORDS
from xpconv.engines.numba.kernels.registers import RELU6, Registers, prefetch, store_past_caches, word
from xpconv.engines.numba.kernels.walk import AFTER_WALK, COUNT2, STEP2, TAP_COUNT, TAPS, Y1, Y2

(
    W,
    W_ROW,
    W_TAP,
    W_LINE,
    CHANNELS,
    BIAS,
    RESIDUAL,
    ACTIVATION,
    CHUNK,
    PANEL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    STREAM,
    OUTPUTS1,
    OUTPUTS2,
) = range(AFTER_WALK, AFTER_WALK + len(Depthwise._fields))
_AHEAD = 4  # cells fetched early for each pixel at most: wider strides leave it to the CPU
_HELD = 9  # weights that are kept in registers along a line


def channel_tile(
    dtype: str, lines: int, rows: int, lanes: int, partial: bool, taps: Taps, single: bool
) -> Callable[..., Any]:
    """L lines of pixels × some channels, each by itself, a vector and P pixels of each line at a time: finish(Σ x · w).

    Each cell under the L · P pixels of a tile and a block of taps is loaded once for all the products it is in. All
    tiles are whole: the last in a line overlaps the one before, and computes the same again. Where pixels stand for
    several outputs (`Taps.up`), tiles have the outputs of all.
    Arguments: ``args`` (`fields.Depthwise` after a `Walk`), then integers: ``image``, the address of an image in x, and
    the first line's (i, j) in cells, but for taps' offsets; ``out``, the address of its first output; how many
    lines of outputs are kept; the bytes to the first channel, and to the channel to stop at; ``left``, the lanes that
    are there if the vector is partial. ``single``: there is one block of taps.
    """

    @intrinsic
    def tile(typing_context, args, image, i, j, out, kept, start, stop, left):
        def codegen(context, builder, signature, arguments):
            args, image, i, j, out, kept, start, stop, left = arguments
            b, fields = builder, Fields(builder, args)
            (up1, up2), left = taps.up, left if partial else None
            r = Registers(b, dtype, lines * up1 * rows * up2, 1, lanes, left)
            cells, end = Cells(b, fields, image, i, j), _End(r, fields, rows * up2, kept, up2)
            first_tap, count2, step2 = (fields[name] for name in (TAPS, COUNT2, STEP2))
            y2 = b.mul(fields[Y2], constant(up2))
            last = b.sub(count2, constant(rows))
            only = cells.under(first_tap) if single else None
            vectors = cgutils.for_range_slice(b, start, stop, constant(lanes * r.size))
            pixels = cgutils.for_range_slice(b, constant(0), count2, constant(rows))
            with vectors as (offset, _):
                weights, line = _Weights(r, fields, offset, taps), b.add(out, offset)
                block = only.beyond(offset) if single else None
                held = weights.held(first_tap) if single and taps.number <= _HELD else None
                with pixels as (k, _):
                    k = b.select(b.icmp_signed("<", k, last), k, last)
                    at, column = b.add(line, b.mul(k, y2)), b.mul(k, step2)
                    end.start(k)
                    if single:
                        r.clear()
                        _add_block(r, lines, rows, taps, block, column, held or weights.of(first_tap), end.stream)
                        end.store(at, offset)
                    else:
                        _add_parts(r, lines, rows, taps, fields, cells, column, weights, end, at, offset)
            return context.get_dummy_value()

        return types.void(WORDS, *[types.int64] * 8), codegen

    return tile


def _add_parts(
    r: Registers,
    lines: int,
    rows: int,
    taps: Taps,
    fields: Fields,
    cells: Cells,
    column: Any,
    weights: _Weights,
    end: _End,
    at: Any,
    offset: Any,
) -> None:
    """Compute a tile from several blocks of taps: some in registers at a time, their sums one after another in y."""
    b, in_part, first_tap = r.b, max(1, TAP_BLOCK // taps.number), fields[TAPS]
    blocks = b.udiv(fields[TAP_COUNT], constant(taps.number))
    parts = b.udiv(b.add(blocks, constant(in_part - 1)), constant(in_part))
    parts = b.select(b.icmp_signed("<", parts, constant(1)), constant(1), parts)
    with cgutils.for_range(b, parts) as part:
        r.clear()
        start = b.mul(part.index, constant(in_part))
        stop = b.add(start, constant(in_part))
        stop = b.select(b.icmp_signed("<", stop, blocks), stop, blocks)
        with cgutils.for_range_slice(b, start, stop, constant(1)) as (index, _):
            tap = b.add(first_tap, b.mul(index, constant(32 * taps.number)))
            block = cells.under(tap).beyond(offset)
            _add_block(r, lines, rows, taps, block, column, weights.of(tap), end.stream)
        is_last = b.icmp_signed("==", b.add(part.index, constant(1)), parts)
        end.store(at, offset, b.icmp_signed(">", part.index, constant(0)), is_last)


class _Weights:
    """The weights of a vector of channels, by tap row and tap of a block."""

    def __init__(self, r: Registers, fields: Fields, offset: Any, taps: Taps) -> None:
        self.r, self.taps, self.first = r, taps, r.b.add(fields[W], offset)
        self.row, self.tap, self.line = (fields[name] for name in (W_ROW, W_TAP, W_LINE))

    def of(self, tap: Any) -> Callable[[int, int], Any]:
        """A function that loads one, for the block whose first tap is at an address."""
        b = self.r.b
        start = b.add(self.first, b.mul(word(b, tap, constant(3)), self.row))

        def load(t: int, q: int) -> Any:
            place = b.add(b.mul(self.line, constant(t)), b.mul(self.tap, constant(q)))
            return self.r.load(b.add(start, place), 0)

        return load

    def held(self, tap: Any) -> Callable[[int, int], Any]:
        """The same, loaded now."""
        load = self.of(tap)
        vectors = [[load(t, q) for q in range(self.taps.run)] for t in range(self.taps.tap_rows)]
        return lambda t, q: vectors[t][q]


def _add_block(
    r: Registers,
    lines: int,
    rows: int,
    taps: Taps,
    block: Block,
    column: Any,
    weight: Callable[[int, int], Any],
    stream: Any,
) -> None:
    """Add what one block of taps gives to a tile whose first pixel is at a column, in cells."""
    b, column = r.b, block.column(column)
    count, depth, across = taps.positions(rows), taps.depth(lines), rows * taps.up[1]

    def add_row(row: int, whole: bool) -> None:
        met = taps.lines_met(lines, row)
        weights = {t: [weight(t, q) for q in range(taps.run)] for _, t in met}
        place = block.places(row, column, whole)
        for q in range(count):
            uses = taps.met(rows, q)
            if uses:
                x = r.load(place(q), 0)
                for y, t in met:
                    for p, tap in uses:
                        at = r.sums[y * across + p][0]
                        b.store(b.call(r.fma, [x, weights[t][tap], b.load(at)]), at)

    with b.if_else(block.whole(column, count)) as branches:
        for branch, whole in zip(branches, (True, False), strict=True):
            with branch:
                for row in range(depth):
                    if taps.lines_met(lines, row):
                        with b.if_then(block.in_row(row)):
                            add_row(row, whole)
    if taps.line_step * taps.step > _AHEAD:
        return
    with b.if_then(stream):  # the rows that the next lines will see are on their way meanwhile
        for row in range(depth, depth + lines * taps.line_step):
            with b.if_then(block.in_row(row)):
                place = block.places(row, column, True)
                for q in range(rows * taps.step):
                    prefetch(b, place(q))


class _End:
    """How tiles end: what is due is added to their sums, and they are stored."""

    def __init__(self, r: Registers, fields: Fields, rows: int, kept: Any, up: int) -> None:
        """``rows`` outputs in a line, ``up`` for each pixel, of which the last may have fewer."""
        b = r.b
        self.r, self.rows, self.up, self.y2 = r, rows, up, fields[Y2]
        self.columns, self.most = [b.mul(self.y2, constant(p)) for p in range(rows)], fields[OUTPUTS2]
        self.bias, self.residual, self.act = fields[BIAS], fields[RESIDUAL], fields[ACTIVATION]
        self.stream = b.icmp_signed("!=", fields[STREAM], constant(0))
        y1, last = fields[Y1], b.sub(kept, constant(1))
        # Lines that are not kept go where the last that is kept goes, and are stored before it.
        self.lines = [
            b.mul(y1, b.select(b.icmp_signed("<", constant(y), kept), constant(y), last))
            for y in range(len(r.sums) // rows)
        ]

    def start(self, k: Any) -> None:
        """A tile starts at a pixel: where the outputs of its last one that are not there go, as those of lines do."""
        b = self.r.b
        if self.up > 1:
            last = b.sub(self.most, b.add(b.mul(k, constant(self.up)), constant(1)))
            for p in range(self.rows - self.up + 1, self.rows):
                fits = b.icmp_signed("<=", constant(p), last)
                self.columns[p] = b.mul(self.y2, b.select(fits, constant(p), last))

    def store(self, out: Any, offset: Any, more: Any = None, last: Any = None) -> None:
        """Store the sums of the tile whose first pixel's output is at an address; ``offset``, the bytes to its channel.

        ``more``: they go on from what is there; ``last``: they are complete, and get what is due.
        """
        b, r = self.r.b, self.r
        sums = [row[0] for row in r.sums]
        places = [b.add(b.add(out, line), column) for line in self.lines for column in self.columns]

        def when(condition: Any) -> Any:
            return b.if_then(condition if last is None else b.and_(condition, last))

        def update(change: Callable[[Any, Any], Any]) -> None:
            for at, place in zip(sums, places, strict=True):
                b.store(change(b.load(at), place), at)

        if more is not None:
            with b.if_then(more):
                update(lambda z, place: b.fadd(z, r.load(place, 0)))
        with when(b.icmp_signed("!=", self.bias, constant(0))):
            bias = r.load(b.add(self.bias, offset), 0)
            update(lambda z, place: b.fadd(z, bias))
        with when(b.icmp_signed("!=", self.residual, constant(0))):
            update(lambda z, place: b.fadd(z, r.load(b.add(place, self.residual), 0)))
        low, high = r.constant(0.0), r.constant(6.0)
        with when(b.icmp_signed("!=", self.act, constant(0))):
            update(lambda z, place: b.select(b.fcmp_ordered("<", z, low), low, z))
        with when(b.icmp_signed("==", self.act, constant(RELU6))):
            update(lambda z, place: b.select(b.fcmp_ordered(">", z, high), high, z))
        with b.if_else(self.stream) as branches:
            for branch, store in zip(branches, (store_past_caches, Registers.store), strict=True):
                with branch:
                    for at, place in zip(reversed(sums), reversed(places), strict=True):
                        store(r, b.load(at), place, 0)
