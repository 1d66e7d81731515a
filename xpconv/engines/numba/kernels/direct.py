"""Direct convolution: sums over taps and channels in register tiles, for outputs and input gradients alike."""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import CACHE_LINE, Direct
from xpconv.engines.numba.fields import TERM_BLOCK as BLOCK
from xpconv.engines.numba.kernels.mathematics import activate
from xpconv.engines.numba.kernels.memory import clear_line, number_type, pointers, words
from xpconv.engines.numba.kernels.pack import mover
from xpconv.engines.numba.kernels.tile import product_tile
from xpconv.engines.numba.kernels.vectors import vectors as vectors_of
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    IMAGES,
    RUN,
    STEP2,
    TAP_COUNT,
    TAPS,
    X2,
    Y_IMAGE,
    ZEROS,
    look_up,
    pixel_count,
)

(
    W,
    W_ROW,
    TERMS,
    OUT_CHANNELS,
    GROUPS,
    X_GROUP,
    BIAS,
    RESIDUAL,
    ACTIVATION,
    CHUNK,
    PANEL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    CELLS,
    TURNED,
) = range(AFTER_WALK, AFTER_WALK + len(Direct._fields))
CACHED = 2**22  # bytes of a y that is soon out of a core's cache


@njit
def next_part(tap, c, terms, tap_count):
    """The end of the part of a sum that starts at a tap and a channel: whole taps, or an even share of one."""
    if terms <= BLOCK or tap_count == 0:
        return min(tap + max(1, BLOCK // terms), tap_count), terms
    shares = -(-terms // BLOCK)
    return tap + 1, min(c + -(-terms // shares), terms)


def late_activation(name, dtype, lanes):
    """What applies an activation to some channels of the pixels at ``outs``, from an offset on; `None` is never run."""
    numbers = pointers(number_type(dtype))
    load, store, load_some, store_some, _ = vectors_of(dtype, lanes)
    act = activate(name or "relu", dtype, lanes)

    @njit
    def activate_pixels(outs, pixels, offset, to_y, count):
        even = count - count % lanes
        for m in range(pixels):
            place = words(outs)[m] + offset
            sums, y = numbers(place), numbers(place + to_y)
            for i in range(0, even, lanes):
                store(y, i, act(load(sums, i)))
            if even < count:
                store_some(y, even, act(load_some(sums, even, count - even)), count - even)

    return activate_pixels


def direct(dtype, rows, vectors, tail, lanes, partial, activation):
    """Output channels in blocks of ``vectors`` vectors, and what is left in ``tail`` vectors, the last perhaps partial.

    An activation named here, rather than by a number in the arguments, is applied to the sums once a task has them all.
    """
    size = 8 if dtype == "float64" else 4
    block = vectors * lanes
    turned_row = max(vectors, tail) * lanes * size
    turned_bytes = BLOCK * turned_row
    tile = product_tile(dtype, rows, vectors, tail, lanes, partial)

    activate_pixels = late_activation(activation, dtype, lanes)
    numbers = pointers(number_type(dtype))
    matrix = mover(dtype, lanes)

    @njit
    def turn(args, turned, tap, tap_end, c, c_end, start, stop, group):
        """Weights of a part of a sum for some output channels, turned as tiles read them; and behind them the taps,
        which say where the rows of each now start."""
        taps, found = words(args[TAPS]), words(turned + turned_bytes)
        rows = args[TERMS] // args[RUN]
        cell_bytes = args[OUT_CHANNELS] * args[W_ROW]
        source = args[W] + group * rows * size + start * args[W_ROW]
        target = turned
        for t in range(tap, tap_end):
            found[4 * t + 3] = (target - turned) // turned_row - c
            at, end = taps[4 * t + 3] + c, taps[4 * t + 3] + c_end
            while at < end:
                cell, row = args[CELLS] - 1 - at // rows, at % rows
                count = min(end - at, rows - row)
                place = source + cell * cell_bytes + row * size
                matrix(place, args[W_ROW], target, turned_row, stop - start, count)
                at += count
                target += count * turned_row

    @njit
    def sum_panel(args, table, outs, pixels, start, stop, group, turned):
        """Output channels start to stop of a group, for the pixels in the table."""
        terms, tap_count = args[TERMS], args[TAP_COUNT]
        ahead = rows * args[STEP2] * args[X2]
        while start < stop:
            wide = vectors > 0 and stop - start >= block
            left = 0 if wide else stop - start - (tail - 1) * lanes
            offset = (group * args[OUT_CHANNELS] + start) * size
            w, w_row, taps = args[W] + offset, args[W_ROW], args[TAPS]
            if args[CELLS]:
                w, w_row, taps = turned, turned_row, turned + turned_bytes
            tap, c = 0, 0
            while True:
                tap_end, c_end = next_part(tap, c, terms, tap_count)
                last = tap_end == tap_count and c_end == terms
                more = 1 if tap > 0 or c > 0 else 0
                bias = args[BIAS] if last else 0
                residual = args[RESIDUAL] if last else 0
                act = args[ACTIVATION] if last else 0
                if args[CELLS]:
                    turn(args, turned, tap, tap_end, c, c_end, start, start + block if wide else stop, group)
                at, out = table, outs
                done = 0
                while done < pixels:
                    kept = min(rows, pixels - done)
                    tile(
                        wide,
                        at,
                        0,
                        ahead,
                        taps,
                        args[ZEROS],
                        tap,
                        tap_end,
                        c,
                        c_end,
                        w,
                        w_row,
                        out,
                        offset,
                        more,
                        bias,
                        residual,
                        act,
                        kept,
                        left,
                    )
                    at += tap_count * rows * 8
                    out += rows * 8
                    done += rows
                if last:
                    break
                if c_end == terms:
                    tap, c = tap_end, 0
                else:
                    c = c_end
            start += block if wide else stop - start

    @njit
    def fill_panel(args, outs, pixels, start, stop, group):
        """Zeros, as where strides step over cells: an activation of 0 that tiles apply is 0."""
        offset, count = (group * args[OUT_CHANNELS] + start) * size, (stop - start) * size
        large = args[IMAGES] * args[Y_IMAGE] > CACHED
        for m in range(pixels):
            place = words(outs)[m] + offset
            if large and (place | count) % CACHE_LINE == 0:
                for at in range(0, count, CACHE_LINE):
                    clear_line(place + at)
            else:
                out = numbers(place)
                for i in range(stop - start):
                    out[i] = 0

    def kernel(args, task, slot):
        total, chunk = pixel_count(args), args[CHUNK]
        chunks = -(-total // chunk)
        panels = -(-args[OUT_CHANNELS] // args[PANEL])
        first = task % chunks * chunk
        panel = task // chunks % panels
        group = task // (chunks * panels)
        pixels = min(chunk, total - first)
        outs = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        steps = outs + (chunk + rows) * 8
        table = steps + args[TAP_COUNT] * 8
        edge = table + (chunk + rows) * args[TAP_COUNT] * 8
        look_up(
            args,
            0,
            args[TAP_COUNT],
            first,
            pixels,
            rows,
            group * args[X_GROUP],
            words(steps),
            words(table),
            words(outs),
            edge,
        )
        start = panel * args[PANEL]
        stop = min(start + args[PANEL], args[OUT_CHANNELS])
        if args[TAP_COUNT] == 0 and args[BIAS] == 0 and args[RESIDUAL] == 0:
            fill_panel(args, outs, pixels, start, stop, group)
        else:
            sum_panel(args, table, outs, pixels, start, stop, group, outs + args[TURNED])
        if activation is not None:
            activate_pixels(outs, pixels, (group * args[OUT_CHANNELS] + start) * size, args[SUMS], stop - start)

    return kernel
