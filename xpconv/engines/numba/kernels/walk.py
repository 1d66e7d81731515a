"""Tables of addresses: where the input under each pixel and tap is, and where the pixel's output goes."""

from __future__ import annotations

from numba import njit, types

from xpconv.engines.numba.fields import Walk
from xpconv.engines.numba.kernels.memory import pointers, words
from xpconv.engines.numba.kernels.vectors import vectors

_parts = pointers(types.float32)  # of numbers, whose bits are copied
_LINE = 16  # parts that are copied at a time
_load, _store, _, _, _ = vectors("float32", _LINE)
(X, Y, IMAGES, COUNT0, COUNT1, COUNT2, SIZE0, SIZE1, SIZE2, STEP0, STEP1, STEP2, X_IMAGE, X0, X1, X2) = range(16)
(Y_IMAGE, Y0, Y1, Y2, TAPS, TAP_COUNT, RUN, CELL, ZEROS) = range(16, 25)
AFTER_WALK = len(Walk._fields)


@njit
def pixel_count(args):
    return args[IMAGES] * args[COUNT0] * args[COUNT1] * args[COUNT2]


@njit
def _reach(taps, tap_count):
    """The least and the greatest offset of the taps on the last axis."""
    low = high = taps[2]
    for t in range(1, tap_count):
        low, high = min(low, taps[4 * t + 2]), max(high, taps[4 * t + 2])
    return low, high


@njit
def look_up(args, tap, stop_tap, first, pixels, per_tile, x_offset, steps, table, outs, edge):
    """Fill ``table`` [tile][tap][pixel of the tile] and ``outs`` [pixel] for some taps, for pixels from ``first`` on.

    The last tile is filled up with its last pixel. Runs of cells that hang over an edge are copied to ``edge``, with
    zeros for what is not there. ``steps`` has room for a word for each tap.
    """
    taps, tap_count = words(args[TAPS] + tap * 32), stop_tap - tap
    if tap_count == 0:
        _look_up_outs(args, first, pixels, outs)
        return
    before, after = _reach(taps, tap_count)
    after += args[RUN] - 1
    for t in range(tap_count):
        steps[t] = taps[4 * t] * args[X0] + taps[4 * t + 1] * args[X1] + taps[4 * t + 2] * args[X2]
    count1, count2 = args[COUNT1], args[COUNT2]
    low, high = -(before // args[STEP2]), -(-(args[SIZE2] - after) // args[STEP2])  # columns whose taps are all inside
    apart = tap_count if per_tile == 1 else 1
    k = first % count2
    rest = first // count2
    j = rest % count1
    rest //= count1
    i, n = rest % args[COUNT0], rest // args[COUNT0]
    at = 0
    in_tile = 0
    m = 0
    while m < pixels:
        a, b = i * args[STEP0], j * args[STEP1]
        row = args[X] + n * args[X_IMAGE] + a * args[X0] + b * args[X1] + x_offset
        out = args[Y] + n * args[Y_IMAGE] + i * args[Y0] + j * args[Y1]
        column, stop = k, min(count2, k + pixels - m)
        while column < stop:
            c = column * args[STEP2]
            place = row + c * args[X2]
            count = 1
            if low <= column < high:  # neighbours, as far as they are in one tile
                count = min(stop, high) - column
                if per_tile > 1:
                    count = min(count, per_tile - in_tile)
                for t in range(tap_count):
                    there = 0 <= a + taps[4 * t] < args[SIZE0] and 0 <= b + taps[4 * t + 1] < args[SIZE1]
                    start, by = (place + steps[t], args[STEP2] * args[X2]) if there else (args[ZEROS], 0)
                    _count_up(table, at + t * per_tile, apart, start, by, count)
            else:
                edge = _look_up_at_edge(args, taps, tap_count, a, b, c, place, steps, table, at, per_tile, edge)
            _count_up(outs, m, 1, out + column * args[Y2], args[Y2], count)
            column += count
            m += count
            at += count * apart
            in_tile += count
            if per_tile > 1 and in_tile == per_tile:
                in_tile = 0
                at += (tap_count - 1) * per_tile
        k = 0
        j += 1
        if j == count1:
            j = 0
            i += 1
            if i == args[COUNT0]:
                i = 0
                n += 1
    while per_tile > 1 and 0 < in_tile < per_tile:
        for t in range(tap_count):
            table[at + t * per_tile] = table[at + t * per_tile - 1]
        at += 1
        in_tile += 1


@njit
def _count_up(table, at, apart, first, by, count):
    """Write first, first + by, ... to every apart-th word from one on."""
    for p in range(count):
        table[at + p * apart] = first + p * by


@njit
def _look_up_at_edge(args, taps, tap_count, a, b, c, place, steps, table, at, per_tile, edge):
    """The addresses for a pixel some of whose taps are outside; returns where the next copy of a run may go."""
    for t in range(tap_count):
        p, q, r = a + taps[4 * t], b + taps[4 * t + 1], c + taps[4 * t + 2]
        found = args[ZEROS]
        if 0 <= p < args[SIZE0] and 0 <= q < args[SIZE1]:
            if r >= 0 and r + args[RUN] <= args[SIZE2]:
                found = place + steps[t]
            elif args[RUN] > 1 and r + args[RUN] > 0 and r < args[SIZE2]:
                found = edge
                _copy_run(args, place + steps[t], r, edge)
                edge += args[RUN] * args[CELL]
        table[at + t * per_tile] = found
    return edge


@njit
def _look_up_outs(args, first, pixels, outs):
    """Where the output of each pixel goes, alone."""
    k = first % args[COUNT2]
    row = first // args[COUNT2]
    m = 0
    while m < pixels:
        j = row % args[COUNT1]
        i, n = row // args[COUNT1] % args[COUNT0], row // (args[COUNT1] * args[COUNT0])
        out = args[Y] + n * args[Y_IMAGE] + i * args[Y0] + j * args[Y1]
        count = min(args[COUNT2] - k, pixels - m)
        _count_up(outs, m, 1, out + k * args[Y2], args[Y2], count)
        m += count
        k = 0
        row += 1


@njit
def _copy_run(args, first, c, edge):
    """Copy the cells of a run that starts at cell c of its row, zeros for those outside."""
    cell = args[CELL] // 4
    to = _parts(edge)
    for r in range(args[RUN]):
        inside = 0 <= c + r < args[SIZE2]
        source = _parts(first + r * args[X2]) if inside else _parts(args[ZEROS])
        q = 0
        while q + _LINE <= cell:
            _store(to, r * cell + q, _load(source, q))
            q += _LINE
        while q < cell:
            to[r * cell + q] = source[q]
            q += 1
