"""Depthwise convolution: each channel with its own kernel, channels in the lanes of vectors, in all three directions.

There is little to compute for each number that is loaded, so tiles are neighbours in a row, whose windows share cells.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PIXEL_BLOCK, Depthwise, DepthwiseOuter
from xpconv.engines.numba.kernels.channel_tile import channel_outer_tile, channel_tile, positions
from xpconv.engines.numba.kernels.direct import late_activation
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    COUNT0,
    COUNT1,
    COUNT2,
    IMAGES,
    SIZE0,
    SIZE1,
    SIZE2,
    STEP0,
    STEP1,
    STEP2,
    TAP_COUNT,
    TAPS,
    X0,
    X1,
    X2,
    X_IMAGE,
    Y0,
    Y1,
    Y2,
    Y_IMAGE,
    ZEROS,
    X,
    Y,
)

(W, W_ROW, W_TAP, CHANNELS, BIAS, RESIDUAL, ACTIVATION, CHUNK, PANEL, SCRATCH, SCRATCH_SLOT, SUMS) = range(
    AFTER_WALK, AFTER_WALK + len(Depthwise._fields)
)
(DW, DW_ROW, DW_CHANNELS, SLABS, SLAB_ROWS, SLAB_BYTES, DW_PANEL, DW_SCRATCH, DW_SCRATCH_SLOT) = range(
    AFTER_WALK, AFTER_WALK + len(DepthwiseOuter._fields)
)
BLOCK = 32  # taps of a sum in registers; long rows of equal terms drift in proportion


@njit
def row_of(args, row):
    """Image and place on the first two axes of a row of pixels."""
    j = row % args[COUNT1]
    rest = row // args[COUNT1]
    return rest // args[COUNT0], rest % args[COUNT0], j


@njit
def cells_of(args, n, i, j, k, first, tap_rows, run, count, table):
    """The addresses of neighbouring cells under pixels from (i, j, k) on: ``count`` for each tap row, from ``first``
    on."""
    taps = words(args[TAPS])
    image = args[X] + n * args[X_IMAGE]
    for t in range(tap_rows):
        tap = 4 * (first + t) * run
        a, b = i * args[STEP0] + taps[tap], j * args[STEP1] + taps[tap + 1]
        c = k * args[STEP2] + taps[tap + 2]
        inside = 0 <= a < args[SIZE0] and 0 <= b < args[SIZE1]
        place = image + a * args[X0] + b * args[X1] + c * args[X2]
        for q in range(count):
            table[t * count + q] = place + q * args[X2] if inside and 0 <= c + q < args[SIZE2] else args[ZEROS]


@njit
def out_of(args, n, i, j, k):
    return args[Y] + n * args[Y_IMAGE] + i * args[Y0] + j * args[Y1] + k * args[Y2]


def depthwise(dtype, rows, vectors, tail, lanes, partial, run, step, activation):
    """As `direct.direct`, for as many groups as channels; tap rows of ``run`` taps, pixels ``step`` cells apart."""
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    count = positions(rows, run, step)
    rest = channel_tile(dtype, rows, max(tail, 1), lanes, partial, run, step)
    whole = channel_tile(dtype, rows, vectors, lanes, False, run, step) if vectors else rest
    activate_pixels = late_activation(activation, dtype, lanes)
    in_block = max(1, BLOCK // run)

    @njit
    def sum_panel(args, table, out, kept, start, stop):
        tap_rows = args[TAP_COUNT] // run
        while start < stop:
            wide = vectors > 0 and stop - start >= block
            left = 0 if wide else stop - start - (tail - 1) * lanes
            offset = start * size
            w = args[W] + offset
            t = 0
            while True:
                end = min(t + in_block, tap_rows)
                last = end == tap_rows
                more = 1 if t > 0 else 0
                bias = args[BIAS] if last else 0
                residual = args[RESIDUAL] if last else 0
                act = args[ACTIVATION] if last else 0
                if wide:
                    whole(
                        table,
                        args[TAPS],
                        t,
                        end,
                        w,
                        args[W_ROW],
                        args[W_TAP],
                        out,
                        args[Y2],
                        offset,
                        more,
                        bias,
                        residual,
                        act,
                        kept,
                        left,
                    )
                else:
                    rest(
                        table,
                        args[TAPS],
                        t,
                        end,
                        w,
                        args[W_ROW],
                        args[W_TAP],
                        out,
                        args[Y2],
                        offset,
                        more,
                        bias,
                        residual,
                        act,
                        kept,
                        left,
                    )
                if last:
                    break
                t = end
            start += block if wide else stop - start

    def kernel(args, task, slot):
        across = -(-args[COUNT2] // rows)
        tiles = args[IMAGES] * args[COUNT0] * args[COUNT1] * across
        chunks = -(-tiles // args[CHUNK])
        first = task % chunks * args[CHUNK]
        start = task // chunks * args[PANEL]
        stop = min(start + args[PANEL], args[CHANNELS])
        table = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        for tile in range(first, min(first + args[CHUNK], tiles)):
            n, i, j = row_of(args, tile // across)
            k = tile % across * rows
            kept = min(rows, args[COUNT2] - k)
            out = out_of(args, n, i, j, k)
            cells_of(args, n, i, j, k, 0, args[TAP_COUNT] // run, run, count, words(table))
            sum_panel(args, table, out, kept, start, stop)
            if activation is not None:
                for p in range(kept):
                    words(table)[0] = out + p * args[Y2]
                    activate_pixels(table, 1, start * size, args[SUMS], stop - start)

    return kernel


def depthwise_outer(dtype, rows, taps, lanes, partial, run, step):
    """As `outer.outer`, for as many groups as channels: pixels in groups of ``rows`` neighbours, then those left over.

    ``taps`` tap rows are summed at a time.
    """
    size = 8 if dtype == "float64" else 4
    cells_of_group, cells_of_pixel = positions(rows, run, step), positions(1, run, step)
    numbers = pointers(number_type(dtype))
    of_group = channel_outer_tile(dtype, rows, taps, lanes, False, run, step)
    of_pixel = channel_outer_tile(dtype, 1, taps, lanes, False, run, step)
    last_of_group = channel_outer_tile(dtype, rows, taps, lanes, partial, run, step) if partial else of_group
    last_of_pixel = channel_outer_tile(dtype, 1, taps, lanes, partial, run, step) if partial else of_pixel

    @njit
    def add_products(args, table, stride, groups, wide, dw, first, start, stop):
        """Add what the groups in the table give to dw, vector by vector."""
        for v in range(start, stop, lanes):
            out = dw + first * run * args[DW_ROW] + v * size
            left = stop - v
            if wide and left >= lanes:
                of_group(table, stride, groups, v * size, out, args[DW_ROW], left)
            elif wide:
                last_of_group(table, stride, groups, v * size, out, args[DW_ROW], left)
            elif left >= lanes:
                of_pixel(table, stride, groups, v * size, out, args[DW_ROW], left)
            else:
                last_of_pixel(table, stride, groups, v * size, out, args[DW_ROW], left)

    @njit
    def add_rows(args, table, per_group, wide, dw, first, row, end, start, stop):
        """Add what pixels of some rows give, those in whole groups (``wide``) or those left over, to some tap rows."""
        across = args[COUNT2] // rows
        steps = across if wide else args[COUNT2] - across * rows
        count = cells_of_group if wide else cells_of_pixel
        stride = taps * count + per_group
        groups = 0
        for r in range(row, end):
            n, i, j = row_of(args, r)
            for g in range(steps):
                k = g * rows if wide else across * rows + g
                at = words(table + groups * stride * 8)
                cells_of(args, n, i, j, k, first, taps, run, count, at)
                for p in range(per_group):
                    at[taps * count + p] = out_of(args, n, i, j, k + p)
                groups += 1
                if (groups + 1) * per_group > PIXEL_BLOCK:
                    add_products(args, table, stride, groups, wide, dw, first, start, stop)
                    groups = 0
        if groups > 0:
            add_products(args, table, stride, groups, wide, dw, first, start, stop)

    def kernel(args, task, slot):
        slab = task % args[SLABS]
        start = task // args[SLABS] * args[DW_PANEL]
        stop = min(start + args[DW_PANEL], args[DW_CHANNELS])
        dw = args[DW] + slab * args[SLAB_BYTES]
        for t in range(args[TAP_COUNT]):
            line = numbers(dw + t * args[DW_ROW])
            for o in range(start, stop):
                line[o] = 0
        table = args[DW_SCRATCH] + slot * args[DW_SCRATCH_SLOT]
        row = slab * args[SLAB_ROWS]
        end = min(row + args[SLAB_ROWS], args[IMAGES] * args[COUNT0] * args[COUNT1])
        for first in range(0, args[TAP_COUNT] // run, taps):
            add_rows(args, table, rows, True, dw, first, row, end, start, stop)
            add_rows(args, table, 1, False, dw, first, row, end, start, stop)

    return kernel
