"""Input gradients with few input channels: products for all kernel cells side by side, then each added where it
belongs.

A few channels would leave most lanes of the direct sum empty; kernel cells × channels fill them.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import Columns
from xpconv.engines.numba.kernels.direct import next_part
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.tile import product_tile
from xpconv.engines.numba.kernels.vectors import vectors as vectors_of
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    COUNT1,
    COUNT2,
    SIZE1,
    SIZE2,
    STEP1,
    STEP2,
    TAPS,
    X1,
    X_IMAGE,
    Y1,
    Y2,
    Y_IMAGE,
    X,
    Y,
)

(W, W_ROW, TERMS, CELLS1, CELLS2, CHANNELS, BAND, ONE_TAP, SCRATCH, SCRATCH_SLOT) = range(
    AFTER_WALK, AFTER_WALK + len(Columns._fields)
)


def columns(dtype, rows, vectors, tail, lanes, partial):
    """A task is a band of rows of dx in one image; ``Walk.x`` is dx, ``Walk.y`` is dy."""
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    tile = product_tile(dtype, rows, vectors, tail, lanes, partial)
    numbers = pointers(number_type(dtype))
    _, _, load_some, store_some, _ = vectors_of(dtype, lanes)

    @njit
    def multiply(args, table, outs, pixels, width):
        """A row of dy by the weights of all kernel cells."""
        start, terms = 0, args[TERMS]
        while start < width:
            wide = vectors > 0 and width - start >= block
            left = 0 if wide else width - start - (tail - 1) * lanes
            offset, w = start * size, args[W] + start * size
            c = 0
            while c < terms:
                _, end = next_part(0, c, terms, 1)
                more = 1 if c > 0 else 0
                for done in range(0, pixels, rows):
                    kept = min(rows, pixels - done)
                    at, out = table + done * 8, outs + done * 8
                    tile(
                        wide,
                        at,
                        0,
                        0,
                        args[ONE_TAP],
                        0,
                        0,
                        1,
                        c,
                        end,
                        w,
                        args[W_ROW],
                        out,
                        offset,
                        more,
                        0,
                        0,
                        0,
                        kept,
                        left,
                    )
                c = end
            start += block if wide else width - start

    @njit
    def add(source, target, count):
        for i in range(0, count, lanes):
            left = count - i
            store_some(target, i, load_some(target, i, left) + load_some(source, i, left), left)

    @njit
    def add_row(args, products, n, j, r0, r1, width):
        """Add the products of a row of dy to the rows of dx from r0 on, up to r1."""
        taps, channels = words(args[TAPS]), args[CHANNELS]
        across = args[CELLS2]
        for k in range(args[COUNT2]):
            for b in range(args[CELLS1]):
                r = j * args[STEP1] + taps[4 * b * across + 1]
                if r0 <= r < r1:
                    c = k * args[STEP2] + taps[4 * b * across + 2]
                    low, high = max(0, -c), min(across, args[SIZE2] - c)
                    source = products + (k * width + (b * across + low) * channels) * size
                    target = args[X] + n * args[X_IMAGE] + r * args[X1] + (c + low) * channels * size
                    if high > low:
                        add(numbers(source), numbers(target), (high - low) * channels)

    def kernel(args, task, slot):
        taps = words(args[TAPS])
        bands = -(-args[SIZE1] // args[BAND])
        n, r0 = task // bands, task % bands * args[BAND]
        r1 = min(r0 + args[BAND], args[SIZE1])
        pixels, width = args[COUNT2], args[CELLS1] * args[CELLS2] * args[CHANNELS]
        table = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        outs = table + (pixels + rows) * 8
        products = -(-(outs + (pixels + rows) * 8) // 64) * 64
        for r in range(r0, r1):
            line = numbers(args[X] + n * args[X_IMAGE] + r * args[X1])
            for i in range(args[SIZE2] * args[CHANNELS]):
                line[i] = 0
        first, last = taps[1], taps[4 * (args[CELLS1] - 1) * args[CELLS2] + 1]
        for j in range(args[COUNT1]):
            if j * args[STEP1] + last >= r0 and j * args[STEP1] + first < r1:
                for k in range(-(-pixels // rows) * rows):
                    words(table)[k] = args[Y] + n * args[Y_IMAGE] + j * args[Y1] + min(k, pixels - 1) * args[Y2]
                    words(outs)[k] = products + min(k, pixels - 1) * width * size
                multiply(args, table, outs, pixels, width)
                add_row(args, products, n, j, r0, r1, width)

    return kernel
