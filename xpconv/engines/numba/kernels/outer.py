"""Weight gradients: sums over pixels of outer products of x under a tap and dy, in register tiles.

Pixels are cut into slabs by the shape alone, each with a dw of its own, and the slabs are added in order: the result
does not depend on how many threads there are. A tile goes along a stretch of pixels before the next one does, in blocks
that it adds to dw, whose part of a tile stays in the cache meanwhile.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PIXEL_BLOCK as BLOCK
from xpconv.engines.numba.fields import Outer, Reduce
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.tile import outer_tile
from xpconv.engines.numba.kernels.vectors import vectors as vectors_of
from xpconv.engines.numba.kernels.walk import AFTER_WALK, STEP2, TAP_COUNT, TAPS, X2, look_up, pixel_count

(
    DW,
    DW_ROW,
    TERMS,
    OUT_CHANNELS,
    GROUPS,
    X_GROUP,
    SLABS,
    SLAB_PIXELS,
    SLAB_BYTES,
    TAP_SHARE,
    BAND,
    PANEL,
    STRETCH,
    SCRATCH,
    SCRATCH_SLOT,
) = range(AFTER_WALK, AFTER_WALK + len(Outer._fields))
(SUM, PARTS, PART_BYTES, PART_COUNT, NUMBERS, PIECE) = range(len(Reduce._fields))


def outer(dtype, rows, vectors, tail, lanes, partial):
    """Output channels in blocks of ``vectors`` vectors, and what is left in ``tail`` vectors, the last perhaps
    partial."""
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    lines = max(vectors, 1)
    tile = outer_tile(dtype, rows, vectors, tail, lanes, partial)
    numbers = pointers(number_type(dtype))

    @njit
    def add_products(args, table, outs, dw, pixels, tap, stop_tap, low, high, start, stop, group, more):
        """What the pixels in the table give to dw, for taps, input and output channels from .. to; ``more``: it is
        added to what is there."""
        shared = stop_tap - tap
        taps = words(args[TAPS])
        ahead = BLOCK * args[STEP2] * args[X2]
        while start < stop:
            wide = vectors > 0 and stop - start >= block
            left = 0 if wide else stop - start - (tail - 1) * lanes
            column = (group * args[OUT_CHANNELS] + start) * size
            dy = words(outs)[0] + column
            dy_row = words(outs)[1] - words(outs)[0] if pixels > 1 else 0
            for t in range(tap, stop_tap):
                at = table + (t - tap) * 8
                for c in range(low, high, rows):
                    first = min(c, high - rows)  # the last tile overlaps the one before, and skips what that has added
                    x, skip = first * size, c - first
                    dy_ahead = BLOCK * dy_row + c // rows % lines * lanes * size
                    out = dw + (taps[4 * t + 3] + first) * args[DW_ROW] + column
                    for done in range(0, pixels, BLOCK):
                        count, add = min(BLOCK, pixels - done), more + done
                        here, there = at + done * shared * 8, dy + done * dy_row
                        tile(
                            wide,
                            here,
                            x,
                            shared,
                            count,
                            ahead,
                            dy_ahead,
                            there,
                            dy_row,
                            out,
                            args[DW_ROW],
                            skip,
                            add,
                            left,
                        )
            start += block if wide else stop - start

    @njit
    def clear(args, dw, tap, stop_tap, low, high, start, stop, group):
        """Zeros, where there are no pixels at all."""
        taps = words(args[TAPS])
        for t in range(tap, stop_tap):
            for c in range(low, high):
                row = numbers(dw + (taps[4 * t + 3] + c) * args[DW_ROW] + group * args[OUT_CHANNELS] * size)
                for o in range(start, stop):
                    row[o] = 0

    def kernel(args, task, slot):
        total = pixel_count(args)
        shares = -(-args[TAP_COUNT] // args[TAP_SHARE])
        bands = -(-args[TERMS] // args[BAND])
        panels = -(-args[OUT_CHANNELS] // args[PANEL])
        slab, rest_of = task % args[SLABS], task // args[SLABS]
        share, rest_of = rest_of % shares, rest_of // shares
        band, rest_of = rest_of % bands, rest_of // bands
        panel, group = rest_of % panels, rest_of // panels
        dw = args[DW] + slab * args[SLAB_BYTES]
        start, low, tap = panel * args[PANEL], band * args[BAND], share * args[TAP_SHARE]
        stop = min(start + args[PANEL], args[OUT_CHANNELS])
        high = min(low + args[BAND], args[TERMS])
        stop_tap = min(tap + args[TAP_SHARE], args[TAP_COUNT])
        outs = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        steps = outs + args[STRETCH] * 8
        table = steps + args[TAP_COUNT] * 8
        edge = table + args[STRETCH] * args[TAP_SHARE] * 8
        begin = slab * args[SLAB_PIXELS]
        end = min(begin + args[SLAB_PIXELS], total)
        if begin >= end:
            clear(args, dw, tap, stop_tap, low, high, start, stop, group)
        for first in range(begin, end, args[STRETCH]):
            pixels = min(args[STRETCH], end - first)
            look_up(
                args,
                tap,
                stop_tap,
                first,
                pixels,
                1,
                group * args[X_GROUP],
                words(steps),
                words(table),
                words(outs),
                edge,
            )
            more = first - begin
            add_products(args, table, outs, dw, pixels, tap, stop_tap, low, high, start, stop, group, more)

    return kernel


def reduce(dtype, lanes):
    """Add up equal arrays, the first first; a task is a piece of them."""
    numbers = pointers(number_type(dtype))
    _, _, load_some, store_some, _ = vectors_of(dtype, lanes)

    def kernel(args, task, slot):
        first = task * args[PIECE]
        stop = min(first + args[PIECE], args[NUMBERS])
        out = numbers(args[SUM])
        while first < stop:
            count = min(lanes, stop - first)
            total = load_some(numbers(args[PARTS]), first, count)
            for part in range(1, args[PART_COUNT]):
                total = total + load_some(numbers(args[PARTS] + part * args[PART_BYTES]), first, count)
            store_some(out, first, total, count)
            first += lanes

    return kernel
