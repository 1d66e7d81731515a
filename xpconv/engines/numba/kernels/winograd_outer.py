"""Weight gradients by Winograd's forms: the transpose, in the weights, of what `kernels.winograd` does."""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PLANE_PAD, TABLE, Weighing, WinogradOuter
from xpconv.engines.numba.forms import Form, transposed
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.patches import walk_over
from xpconv.engines.numba.kernels.tile import outer_tile
from xpconv.engines.numba.kernels.transform import transform, transform_back
from xpconv.engines.numba.kernels.walk import AFTER_WALK, ZEROS

(SUM, C, OUT_C, SLABS, SLAB_TILES, TILES, PANEL, SCRATCH, SCRATCH_SLOT, FETCHES) = range(
    AFTER_WALK, AFTER_WALK + len(WinogradOuter._fields)
)
(W, OUT, W_CHANNELS, W_OUT_CHANNELS, W_ROW, W_TAPS, W_SCRATCH, W_SLOT, _) = range(len(Weighing._fields))


def outer(dtype, rows, vectors, tail, lanes, form):
    """(Bᵀ x) ⊗ (A dy), summed over the tiles of a slab, for some output channels; as `outer.outer`, term by term."""
    form = Form.parse(form)
    size = 8 if dtype == "float64" else 4
    terms, planes, pixels, plane_of = form.terms, form.planes, form.outputs, form.plane_of
    block = max(vectors, tail) * lanes
    tile_count, spot_of, after, cells_of, pixels_of, _, _, fetch_tiles = walk_over(form)
    from_x = transform(form.of_cells, form.numbers, dtype, lanes)
    from_dy = transform([transposed(matrix) for matrix in form.of_planes], range(planes), dtype, lanes)
    tile = outer_tile(dtype, rows, vectors, tail, lanes, False)
    numbers = pointers(number_type(dtype))

    @njit
    def add_products(args, table, patches, others, tiles, start, stop, sums, more):
        """The outer products of one term of some tiles; ``more``: they are added to what is there."""
        c, o = args[C], args[OUT_C]
        for t in range(tiles):
            words(table)[t] = patches + t * c * size
        at = start
        while at < stop:
            wide = vectors > 0 and stop - at >= block
            dy = others + (at - start) * size
            for c0 in range(0, c, rows):
                first = min(c0, c - rows)
                x, skip = first * size, c0 - first
                out = sums + (first * o + at) * size
                row, out_row = (stop - start) * size, o * size
                tile(wide, table, x, 1, tiles, 0, 0, dy, row, out, out_row, skip, more, 0)
            at += block if wide else stop - at

    @njit
    def clear(sums, c, o, start, stop):
        """Zeros, where there are no tiles at all."""
        for q in range(terms * c):
            row = numbers(sums + q * o * size)
            for i in range(start, stop):
                row[i] = 0

    def kernel(args, task, slot):
        c, o, chunk = args[C], args[OUT_C], args[TILES]
        slab = task % args[SLABS]
        start = task // args[SLABS] * args[PANEL]
        stop = min(start + args[PANEL], o)
        sums = args[SUM] + slab * terms * c * o * size
        cells = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        table = cells + TABLE
        patches = -(-(table + chunk * 8) // 64) * 64
        plane, other_plane = chunk * c * size + PLANE_PAD, chunk * args[PANEL] * size + PLANE_PAD
        others = patches + terms * plane
        begin = slab * args[SLAB_TILES]
        end = min(begin + args[SLAB_TILES], tile_count(args))
        if begin >= end:
            clear(sums, c, o, start, stop)
            return
        spot = spot_of(args, begin)
        for first in range(begin, end, chunk):
            tiles = min(chunk, end - first)
            for t in range(tiles):
                cells_of(args, spot, words(cells))
                for v in range(0, c, lanes):
                    from_x(cells, v * size, patches + (t * c + v) * size, plane)
                pixels_of(args, spot, words(cells))
                spot = after(args, spot)
                for q in range(pixels):
                    if words(cells)[q] == 0:
                        words(cells)[q] = args[ZEROS] - start * size
                for v in range(0, stop - start, lanes):
                    from_dy(cells, (start + v) * size, others + (t * (stop - start) + v) * size, other_plane)
            coming, share = spot, -(-chunk // terms)
            for term in range(terms):
                if args[FETCHES] != 0:  # the next tiles, while products are made of these
                    coming = fetch_tiles(args, coming, share, c * size, start * size, stop * size)
                dy = others + plane_of[term] * other_plane
                into = sums + term * c * o * size
                add_products(args, table, patches + term * plane, dy, tiles, start, stop, into, first - begin)

    return kernel


def unweigh(dtype, lanes, form):
    """dw = Gᵀ M: (terms, C, O) -> (taps, C, O); a task is an input channel."""
    form = Form.parse(form)
    size = 8 if dtype == "float64" else 4
    tap_count = form.taps
    to_taps = transform_back([transposed(matrix) for matrix in form.of_taps], form.numbers, dtype, lanes)

    def kernel(args, task, slot):
        c, o = args[W_CHANNELS], args[W_OUT_CHANNELS]
        table = args[W_SCRATCH] + slot * args[W_SLOT]
        for tap in range(tap_count):
            words(table)[tap] = args[OUT] + (words(args[W_TAPS])[4 * tap + 3] + task) * args[W_ROW]
        for v in range(0, o, lanes):
            to_taps(args[W] + (task * o + v) * size, c * o * size, table, v * size, 0, 0, 0, 0)

    return kernel
