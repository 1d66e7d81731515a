"""Convolutions by Winograd's minimal filtering, in three stages that stay in a core's cache.

Some tiles' patches are transformed, products of matrices over terms and channels take the place of the direct sum, and
their planes are transformed back. `forms` says how.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PLANE_PAD, TABLE, Weighing, Winograd
from xpconv.engines.numba.forms import Form
from xpconv.engines.numba.kernels.direct import late_activation, next_part
from xpconv.engines.numba.kernels.memory import words
from xpconv.engines.numba.kernels.pack import mover
from xpconv.engines.numba.kernels.patches import walk_over
from xpconv.engines.numba.kernels.tile import product_tile
from xpconv.engines.numba.kernels.transform import transform, transform_back
from xpconv.engines.numba.kernels.walk import AFTER_WALK

(
    U,
    IN_CHANNELS,
    OUT_CHANNELS,
    BIAS,
    RESIDUAL,
    ACTIVATION,
    CHUNK,
    PANEL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    PLANE,
    TERM_ROWS,
    AHEAD,
) = range(AFTER_WALK, AFTER_WALK + len(Winograd._fields))
(W, OUT, W_CHANNELS, W_OUT_CHANNELS, W_ROW, W_TAPS, W_SCRATCH, W_SLOT, W_CELLS) = range(len(Weighing._fields))


def weigh(dtype, vectors, tail, lanes, form):
    """U = G w: (taps, C, O) -> (blocks of O, terms, C and a row of padding, channels of the block); a task is an input
    channel."""
    form = Form.parse(form)
    size = 8 if dtype == "float64" else 4
    terms, tap_count, block = form.terms, form.taps, vectors * lanes
    to_terms = transform(form.of_taps, form.numbers, dtype, lanes)

    def kernel(args, task, slot):
        c, o = args[W_CHANNELS], args[W_OUT_CHANNELS]
        table = args[W_SCRATCH] + slot * args[W_SLOT]
        for tap in range(tap_count):
            words(table)[tap] = args[W] + (words(args[W_TAPS])[4 * tap + 3] + task) * args[W_ROW]
        start = 0
        while start < o:
            count = block if 0 < block <= o - start else o - start
            row = args[OUT] + (start * terms * (c + 1) + task * count) * size
            for v in range(0, count, lanes):
                to_terms(table, (start + v) * size, row + v * size, (c + 1) * count * size)
            start += count

    return kernel


def weigh_turned(dtype, vectors, tail, lanes, form):
    """As `weigh`, of weights that lie the other way round; a task is a vector of input channels."""
    form = Form.parse(form)
    size = 8 if dtype == "float64" else 4
    terms, tap_count, block = form.terms, form.taps, vectors * lanes
    turned_row = max(vectors, tail) * lanes * size
    to_terms = transform(form.of_taps, form.numbers, dtype, lanes)
    matrix = mover(dtype, lanes)

    def kernel(args, task, slot):
        c, o, w_row = args[W_CHANNELS], args[W_OUT_CHANNELS], args[W_ROW]
        table = args[W_SCRATCH] + slot * args[W_SLOT]
        turned, start = table + TABLE, 0
        while start < o:
            count = block if 0 < block <= o - start else o - start
            for tap in range(tap_count):
                cell = args[W_CELLS] - 1 - words(args[W_TAPS])[4 * tap + 3] // c
                at = args[W] + (cell * o + start) * w_row + task * lanes * size
                matrix(at, w_row, turned + tap * lanes * turned_row, turned_row, count, lanes)
            row = args[OUT] + (start * terms * (c + 1) + task * lanes * count) * size
            for i in range(lanes):
                for tap in range(tap_count):
                    words(table)[tap] = turned + (tap * lanes + i) * turned_row
                for v in range(0, count, lanes):
                    to_terms(table, v * size, row + (i * count + v) * size, (c + 1) * count * size)
            start += count

    return kernel


def winograd(dtype, rows, vectors, tail, lanes, form, activation):
    """As `direct.direct`, for one group, channels that fill whole vectors, and taps that are the form's neighbours."""
    form = Form.parse(form)
    size = 8 if dtype == "float64" else 4
    terms, planes, pixels, most, starts = form.terms, form.planes, form.outputs, form.most, form.starts
    block = max(vectors, tail) * lanes
    tile_count, spot_of, after, cells_of, pixels_of, divides, needs_of, fetch_tiles = walk_over(form)
    to_terms = transform(form.of_cells, form.numbers, dtype, lanes)
    to_pixels = transform_back(form.of_planes, range(planes), dtype, lanes)
    tile = product_tile(dtype, rows, vectors, tail, lanes, False)
    activate_pixels = late_activation(activation, dtype, lanes)

    @njit
    def look_up(even, table, outs, needs, patches, plane, products, c, tiles):
        """Fill ``table`` [register tile][term of a plane][tile] and ``outs`` [tile] for the tiles that need a plane, as
        if it were the first, and answer how many do; the last register tile is filled up with its last tile."""
        found = 0
        for t in range(tiles):
            if even or needs[t * planes] != 0:
                at = table + (found // rows * rows * most + found % rows) * 8
                for term in range(most):
                    words(at)[term * rows] = patches + t * c * size + term * plane
                words(outs)[found] = products + t * block * size
                found += 1
        for t in range(found, -(-found // rows) * rows):
            at = table + (t // rows * rows * most + t % rows) * 8
            for term in range(most):
                words(at)[term * rows] = words(at)[term * rows - 1]
            words(outs)[t] = words(outs)[t - 1]
        return found

    @njit
    def multiply(args, table, outs, tiles, first, term_count, product, u, u_row, wide):
        """A plane of products: rows of transformed patches by some output channels of transformed weights."""
        x_offset, taps = first * args[PLANE], args[TERM_ROWS] + first * 32
        channels, term, c = args[IN_CHANNELS], 0, 0
        while term < term_count:
            term_end, c_end = next_part(term, c, channels, term_count)
            more = 1 if term > 0 or c > 0 else 0
            for done in range(0, tiles, rows):
                at, out, kept = table + done * most * 8, outs + done * 8, min(rows, tiles - done)
                tile(
                    wide,
                    at,
                    x_offset,
                    0,
                    taps,
                    0,
                    term,
                    term_end,
                    c,
                    c_end,
                    u,
                    u_row,
                    out,
                    product,
                    more,
                    0,
                    0,
                    0,
                    kept,
                    0,
                )
            if c_end == channels:
                term, c = term_end, 0
            else:
                c = c_end

    def kernel(args, task, slot):
        c, o, chunk, plane = args[IN_CHANNELS], args[OUT_CHANNELS], args[CHUNK], args[PLANE]
        chunks = -(-tile_count(args) // chunk)
        first = task % chunks * chunk
        tiles = min(chunk, tile_count(args) - first)
        cells = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        table = cells + TABLE
        outs = table + most * chunk * 8
        needs = outs + chunk * 8
        patches = -(-(needs + chunk * planes * 8) // 64) * 64
        products = patches + terms * plane
        product_plane = chunk * block * size + PLANE_PAD
        spot, even = spot_of(args, first), divides(args)
        for t in range(tiles):
            if not even:
                needs_of(args, spot, words(needs + t * planes * 8))
            cells_of(args, spot, words(cells))
            spot = after(args, spot)
            for v in range(0, c, lanes):
                to_terms(cells, v * size, patches + (t * c + v) * size, plane)
        start = panel = task // chunks * args[PANEL]
        stop = min(start + args[PANEL], o)
        found = 0
        coming = spot_of(args, first + args[AHEAD])
        while start < stop:
            wide = vectors > 0 and stop - start >= vectors * lanes
            count = vectors * lanes if wide else stop - start
            u = args[U] + start * terms * (c + 1) * size
            for q in range(planes):
                if not even or (q == 0 and start == panel):
                    found = look_up(even, table, outs, words(needs + q * 8), patches, plane, products, c, tiles)
                if args[AHEAD] > 0 and start == panel:  # the tiles of a later task, while products are made of these
                    coming = fetch_tiles(args, coming, -(-chunk // planes), c * size, 0, o * size)
                term, more = starts[q], starts[q + 1] - starts[q]
                multiply(args, table, outs, found, term, more, q * product_plane, u, count * size, wide)
            spot = spot_of(args, first)
            for t in range(tiles):
                pixels_of(args, spot, words(cells))
                spot = after(args, spot)
                for v in range(0, count, lanes):
                    source = products + (t * block + v) * size
                    offset = (start + v) * size
                    to_pixels(source, product_plane, cells, offset, 0, args[BIAS], args[RESIDUAL], args[ACTIVATION])
                if activation is not None:
                    for q in range(pixels):
                        if words(cells)[q] != 0:
                            activate_pixels(cells + q * 8, 1, start * size, args[SUMS], count)
            start += count

    return kernel
