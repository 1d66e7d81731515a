"""Depthwise convolution: each channel with its own kernel, channels in the lanes of vectors, in all three directions."""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.kernels.direct import (
    ACTIVATION,
    BIAS,
    CHUNK,
    OUT_CHANNELS,
    PANEL,
    RESIDUAL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    W,
    W_ROW,
    late_activation,
)
from xpconv.engines.numba.kernels import outer as sums
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.tile import channel_outer_tile, channel_tile
from xpconv.engines.numba.kernels.walk import TAP_COUNT, TAPS, look_up, pixel_count

BLOCK = 32  # taps of a sum in registers; long rows of equal terms drift in proportion


def depthwise(dtype, rows, vectors, tail, lanes, partial, activation):
    """As `direct.direct`, for as many groups as channels."""
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    rest = channel_tile(dtype, rows, max(tail, 1), lanes, partial)
    whole = channel_tile(dtype, rows, vectors, lanes, False) if vectors else rest
    activate_pixels = late_activation(activation, dtype, lanes)

    def kernel(args, task, slot):
        total, chunk, tap_count = pixel_count(args), args[CHUNK], args[TAP_COUNT]
        chunks = -(-total // chunk)
        first = task % chunks * chunk
        begin = task // chunks * args[PANEL]
        stop = min(begin + args[PANEL], args[OUT_CHANNELS])
        pixels = min(chunk, total - first)
        outs = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        steps = outs + (chunk + rows) * 8
        table = steps + args[TAP_COUNT] * 8
        look_up(args, 0, tap_count, first, pixels, rows, 0, words(steps), words(table), words(outs), 0)
        at, out = table, outs
        for done in range(0, pixels, rows):
            kept = min(rows, pixels - done)
            start = begin
            ahead = at + ((tap_count if done + rows < pixels else 0) + tap_count - 1) * rows * 8
            while start < stop:
                wide = vectors > 0 and stop - start >= block
                left = 0 if wide else stop - start - (tail - 1) * lanes
                offset = start * size
                w = args[W] + offset
                tap = 0
                while True:
                    end = min(tap + BLOCK, tap_count)
                    last = end == tap_count
                    more = 1 if tap > 0 else 0
                    bias = args[BIAS] if last else 0
                    residual = args[RESIDUAL] if last else 0
                    act = args[ACTIVATION] if last else 0
                    if wide:
                        whole(at, args[TAPS], tap, end, ahead, w, args[W_ROW], out, offset, more, bias, residual, act, kept, left)
                    else:
                        rest(at, args[TAPS], tap, end, ahead, w, args[W_ROW], out, offset, more, bias, residual, act, kept, left)
                    if last:
                        break
                    tap = end
                start += block if wide else stop - start
            at += tap_count * rows * 8
            out += rows * 8
        if activation is not None:
            activate_pixels(outs, pixels, begin * size, args[SUMS], stop - begin)

    return kernel


def depthwise_outer(dtype, rows, vectors, tail, lanes, partial):
    """As `outer.outer`, for as many groups as channels; rows of a tile are taps."""
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    rest = channel_outer_tile(dtype, rows, max(tail, 1), lanes, partial)
    whole = channel_outer_tile(dtype, rows, vectors, lanes, False) if vectors else rest
    numbers = pointers(number_type(dtype))

    @njit
    def add_products(args, table, outs, dw, pixels, start, stop):
        tap_count = args[TAP_COUNT]
        while start < stop:
            wide = vectors > 0 and stop - start >= block
            left = 0 if wide else stop - start - (tail - 1) * lanes
            offset = start * size
            dy = words(outs)[0] + offset
            dy_row = words(outs)[1] - words(outs)[0] if pixels > 1 else 0
            for tap in range(0, tap_count, rows):
                kept = min(rows, tap_count - tap)
                out = dw + tap * args[sums.DW_ROW] + offset
                if wide:
                    whole(table + tap * 8, tap_count, pixels, offset, dy, dy_row, out, args[sums.DW_ROW], kept, left)
                else:
                    rest(table + tap * 8, tap_count, pixels, offset, dy, dy_row, out, args[sums.DW_ROW], kept, left)
            start += block if wide else stop - start

    def kernel(args, task, slot):
        total, tap_count = pixel_count(args), args[TAP_COUNT]
        slab = task % args[sums.SLABS]
        start = task // args[sums.SLABS] * args[sums.PANEL]
        stop = min(start + args[sums.PANEL], args[sums.OUT_CHANNELS])
        dw = args[sums.DW] + slab * args[sums.SLAB_BYTES]
        for t in range(tap_count):
            row = numbers(dw + t * args[sums.DW_ROW])
            for o in range(start, stop):
                row[o] = 0
        outs = args[sums.SCRATCH] + slot * args[sums.SCRATCH_SLOT]
        steps = outs + sums.BLOCK * 8
        table = steps + tap_count * 8
        first = slab * args[sums.SLAB_PIXELS]
        end = min(first + args[sums.SLAB_PIXELS], total)
        while first < end:
            pixels = min(sums.BLOCK, end - first)
            look_up(args, 0, tap_count, first, pixels, 1, 0, words(steps), words(table), words(outs), 0)
            add_products(args, table, outs, dw, pixels, start, stop)
            first += sums.BLOCK

    return kernel
