"""Depthwise convolution: each channel with its own kernel, channels in the lanes of vectors, in all three directions.

There is little to compute for each number that is loaded, so tiles are neighbours in lines and rows, whose windows
share cells; and a vector of channels goes all along some lines before the next one does.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PIXEL_BLOCK, DepthwiseOuter
from xpconv.engines.numba.kernels.cells import Taps
from xpconv.engines.numba.kernels.channel_outer import channel_outer_tile
from xpconv.engines.numba.kernels.channel_tile import (
    CHANNELS,
    CHUNK,
    OUTPUTS1,
    OUTPUTS2,
    PANEL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    channel_tile,
)
from xpconv.engines.numba.kernels.direct import late_activation
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    COUNT0,
    COUNT1,
    COUNT2,
    IMAGES,
    STEP0,
    STEP1,
    TAP_COUNT,
    X_IMAGE,
    Y0,
    Y1,
    Y2,
    Y_IMAGE,
    X,
    Y,
)

(DW, DW_ROW, DW_CHANNELS, SLABS, SLAB_ROWS, SLAB_BYTES, DW_PANEL) = range(
    AFTER_WALK, AFTER_WALK + len(DepthwiseOuter._fields)
)


def depthwise(
    dtype, lines, rows, lanes, partial, tap_rows, run, line_step, step, up1, up2, shift1, shift2, single, activation
):
    """As `direct.direct`, for as many groups as channels; blocks of ``tap_rows`` × ``run`` taps (`cells.Taps`).

    A task is some pairs (or more: ``lines``) of lines of pixels, and some channels.
    """
    size = 8 if dtype == "float64" else 4
    taps = Taps(tap_rows, run, line_step, step, (up1, up2), (shift1, shift2))
    whole = channel_tile(dtype, lines, rows, lanes, False, taps, single)
    rest = channel_tile(dtype, lines, rows, lanes, True, taps, single) if partial else whole
    activate_pixels = late_activation(activation, dtype, lanes)

    @njit
    def sum_lines(args, n, i, j, kept, start, stop):
        """Some lines of pixels, for some channels."""
        image = args[X] + n * args[X_IMAGE]
        out = args[Y] + n * args[Y_IMAGE] + i * args[Y0] + j * up1 * args[Y1]
        a, b = i * args[STEP0], j * args[STEP1]
        even = start + (stop - start) // lanes * lanes
        whole(args, image, a, b, out, kept, start * size, even * size, 0)
        if partial and even < stop:
            rest(args, image, a, b, out, kept, even * size, stop * size, stop - even)

    def kernel(args, task, slot):
        groups = -(-args[COUNT1] // lines)
        total = args[IMAGES] * args[COUNT0] * groups
        chunks = -(-total // args[CHUNK])
        first = task % chunks * args[CHUNK]
        start = task // chunks * args[PANEL]
        stop = min(start + args[PANEL], args[CHANNELS])
        table = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        for group in range(first, min(first + args[CHUNK], total)):
            j, plane = group % groups * lines, group // groups
            i, n = plane % args[COUNT0], plane // args[COUNT0]
            kept = min(lines * up1, args[OUTPUTS1] - j * up1)
            sum_lines(args, n, i, j, kept, start, stop)
            if activation is not None:
                for y in range(j * up1, j * up1 + kept):
                    for k in range(args[OUTPUTS2]):
                        words(table)[0] = args[Y] + n * args[Y_IMAGE] + i * args[Y0] + y * args[Y1] + k * args[Y2]
                        activate_pixels(table, 1, start * size, args[SUMS], stop - start)

    return kernel


def depthwise_outer(dtype, rows, lanes, partial, tap_rows, run, line_step, step):
    """As `outer.outer`, for as many groups as channels: pixels ``rows`` at a time, a block of taps at a time.

    A task is a slab of lines of pixels, and some channels.
    """
    size = 8 if dtype == "float64" else 4
    numbers = pointers(number_type(dtype))
    taps = Taps(tap_rows, run, line_step, step)
    whole = channel_outer_tile(dtype, rows, lanes, False, taps)
    rest = channel_outer_tile(dtype, rows, lanes, True, taps) if partial else whole
    block_taps = tap_rows * run
    most = PIXEL_BLOCK // rows * rows  # pixels of a line at a time

    @njit
    def add_lines(args, dw, n, i, j, lines, start, stop):
        """Add what some lines of an image give."""
        image = args[X] + n * args[X_IMAGE]
        first = args[Y] + n * args[Y_IMAGE] + i * args[Y0] + j * args[Y1]
        for t in range(args[TAP_COUNT] // block_taps):
            for v in range(start, stop, lanes):
                at, left = v * size, stop - v
                out = dw + t * block_taps * args[DW_ROW] + at
                for k in range(0, args[COUNT2], most):
                    pixels, dy = min(most, args[COUNT2] - k), first + k * args[Y2] + at
                    a = i * args[STEP0]
                    if not partial or left >= lanes:
                        whole(args, t, image + at, a, j, k, lines, pixels, dy, out, args[DW_ROW], left)
                    else:
                        rest(args, t, image + at, a, j, k, lines, pixels, dy, out, args[DW_ROW], left)

    def kernel(args, task, slot):
        slab = task % args[SLABS]
        start = task // args[SLABS] * args[DW_PANEL]
        stop = min(start + args[DW_PANEL], args[DW_CHANNELS])
        dw = args[DW] + slab * args[SLAB_BYTES]
        for t in range(args[TAP_COUNT]):
            sums = numbers(dw + t * args[DW_ROW])
            for o in range(start, stop):
                sums[o] = 0
        row = slab * args[SLAB_ROWS]
        end = min(row + args[SLAB_ROWS], args[IMAGES] * args[COUNT0] * args[COUNT1])
        while row < end:
            j, rest_of = row % args[COUNT1], row // args[COUNT1]
            lines = min(min(end - row, args[COUNT1] - j), max(1, PIXEL_BLOCK // max(args[COUNT2], 1)))
            add_lines(args, dw, rest_of // args[COUNT0], rest_of % args[COUNT0], j, lines, start, stop)
            row += lines

    return kernel
