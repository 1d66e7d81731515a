"""Convolution with few input channels, from bands of rows that are copied with their padding.

Where all that a line of pixels reads lies side by side, neither addresses nor edges have to be asked for.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import Bands
from xpconv.engines.numba.kernels.direct import late_activation
from xpconv.engines.numba.kernels.line_tile import LINE, line_tile
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.pixel_tile import pixel_tile
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    COUNT1,
    COUNT2,
    SIZE1,
    SIZE2,
    STEP1,
    TAP_COUNT,
    TAPS,
    X1,
    X_IMAGE,
    Y1,
    Y2,
    Y_IMAGE,
    X,
    Y,
)

ROW, BAND, SCRATCH, SCRATCH_SLOT, SUMS, OUT_CHANNELS = (
    AFTER_WALK + Bands._fields.index(name)
    for name in ("row", "band", "scratch", "scratch_slot", "sums", "out_channels")
)


def lines(dtype, rows, vectors, lanes, channels, step, single, activation):
    """As `direct.direct`, without groups, for whole vectors of output channels: ``rows`` pixels of a line at a time.

    ``step`` cells from pixel to pixel; ``single``: all terms are one running sum. A task is a band of lines.
    """
    size = 8 if dtype == "float64" else 4
    apart = step * channels
    tile = line_tile(dtype, rows, vectors, lanes, apart, single)

    @njit
    def sum_lines(args, copied, out, count):
        end = args[COUNT2] - rows
        for o in range(0, args[OUT_CHANNELS], vectors * lanes):
            for y in range(count):
                for pixel in range(0, args[COUNT2], rows):
                    k = min(pixel, end)  # the last tile overlaps the one before, and computes the same again
                    x = copied + y * args[LINE] + k * apart * size
                    tile(args, x, out + y * args[Y1] + k * args[Y2], o * size)

    return _banded(dtype, lanes, 1, 1, channels, sum_lines, activation)


def pixels(dtype, rows, vectors, lanes, channels, outputs, step, activation):
    """The same for a few output channels: ``rows`` lines at a time, neighbouring pixels in the lanes of vectors.

    Rows are taken apart by channels and, where strides step over cells, by phases, so that what neighbouring pixels
    read under a kernel cell lies side by side.
    """
    tile = pixel_tile(dtype, rows, vectors, lanes, outputs)

    @njit
    def sum_lines(args, copied, out, count):
        for y in range(0, count, rows):
            for k in range(0, args[COUNT2], vectors * lanes):
                tile(args, copied + y * args[LINE], out + y * args[Y1], k, min(rows, count - y))

    return _banded(dtype, lanes, channels, step, 1, sum_lines, activation)


def _banded(dtype, lanes, channels, step, unit, sum_lines, activation):
    """A kernel that copies the rows of a band, a cell being ``unit`` numbers for each channel, and does its lines.

    ``sum_lines(args, copied, out, count)``: from the copies to the outputs of so many lines.
    """
    size = 8 if dtype == "float64" else 4
    numbers = pointers(number_type(dtype))
    activate_pixels = late_activation(activation, dtype, lanes)

    @njit
    def copy_row(row, there, to, first, count, plane):
        """``plane`` numbers for each channel and phase, from number ``first`` of a row on, with zeros beside it."""
        source = numbers(row)
        for c in range(channels):
            for phase in range(step):
                target, start = numbers(to + (c * step + phase) * plane * size), first + phase
                low = min(max(-(start // step), 0), plane) if there else plane
                high = max(min((count - start + step - 1) // step, plane), low)
                for m in range(low):
                    target[m] = 0
                for m in range(low, high):
                    target[m] = source[(start + m * step) * channels + c]
                for m in range(high, plane):
                    target[m] = 0

    def kernel(args, task, slot):
        bands = -(-args[COUNT1] // args[BAND])
        n, first = task // bands, task % bands * args[BAND]
        count = min(args[BAND], args[COUNT1] - first)
        table = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        copied, taps, plane = table + 64, words(args[TAPS]), args[ROW] // (channels * step * size)
        top, left = taps[1], taps[2]
        depth = (count - 1) * args[STEP1] + taps[4 * (args[TAP_COUNT] - 1) + 1] - top + 1
        for q in range(depth):
            a = first * args[STEP1] + top + q
            row = args[X] + n * args[X_IMAGE] + a * args[X1]
            there = 0 <= a < args[SIZE1]
            copy_row(row, there, copied + q * args[ROW], left * unit, args[SIZE2] * unit, plane)
        out = args[Y] + n * args[Y_IMAGE] + first * args[Y1]
        sum_lines(args, copied, out, count)
        if activation is not None:
            for y in range(count):
                words(table)[0] = out + y * args[Y1]
                activate_pixels(table, 1, 0, args[SUMS], args[COUNT2] * args[OUT_CHANNELS])

    return kernel
