"""3 × 3 convolutions by Winograd's minimal filtering, in three stages that stay in a core's cache.

Some tiles' patches are transformed, (m + 2)² matrix products over channels take their place of the 9 · m² of the direct
sum, and the products are transformed back. `transform` has the matrices.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.fields import PLANE_PAD, Weighing, Winograd, WinogradOuter
from xpconv.engines.numba.kernels.direct import late_activation, next_part
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.tile import outer_tile, product_tile
from xpconv.engines.numba.kernels.transform import FORMS, transform, transform_back, transposed
from xpconv.engines.numba.kernels.walk import (
    AFTER_WALK,
    COUNT1,
    COUNT2,
    IMAGES,
    SIZE1,
    SIZE2,
    TAPS,
    X1,
    X2,
    X_IMAGE,
    Y1,
    Y2,
    Y_IMAGE,
    ZEROS,
    X,
    Y,
)

(
    U,
    IN_CHANNELS,
    OUT_CHANNELS,
    BIAS,
    RESIDUAL,
    ACTIVATION,
    CHUNK,
    W_PANEL,
    SCRATCH,
    SCRATCH_SLOT,
    SUMS,
    PLANE,
    ONE_TAP,
) = range(AFTER_WALK, AFTER_WALK + len(Winograd._fields))
(SUM, C, OUT_C, SLABS, SLAB_TILES, TILES, PANEL, OUTER_SCRATCH, OUTER_SCRATCH_SLOT) = range(
    AFTER_WALK, AFTER_WALK + len(WinogradOuter._fields)
)
(W, OUT, W_CHANNELS, W_OUT_CHANNELS, W_ROW, W_SCRATCH) = range(len(Weighing._fields))


@njit
def cells_of(args, tile, m, table):
    """The addresses of the (m + 2)² cells of x under a tile."""
    taps = words(args[TAPS])
    down, across = -(-args[COUNT1] // m), -(-args[COUNT2] // m)
    n = tile // (down * across)
    top = tile // across % down * m + taps[1]
    left = tile % across * m + taps[2]
    image = args[X] + n * args[X_IMAGE]
    for a in range(m + 2):
        for b in range(m + 2):
            i, j = top + a, left + b
            inside = 0 <= i < args[SIZE1] and 0 <= j < args[SIZE2]
            table[a * (m + 2) + b] = image + i * args[X1] + j * args[X2] if inside else args[ZEROS]


@njit
def places_of(args, tile, m, table):
    """The addresses of the m² pixels of y in a tile, 0 for those beyond the edge."""
    down, across = -(-args[COUNT1] // m), -(-args[COUNT2] // m)
    n = tile // (down * across)
    top, left = tile // across % down * m, tile % across * m
    image = args[Y] + n * args[Y_IMAGE]
    for a in range(m):
        for b in range(m):
            i, j = top + a, left + b
            inside = i < args[COUNT1] and j < args[COUNT2]
            table[a * m + b] = image + i * args[Y1] + j * args[Y2] if inside else 0


@njit
def tile_count(args, m):
    return args[IMAGES] * (-(-args[COUNT1] // m)) * (-(-args[COUNT2] // m))


def weigh(dtype, lanes, m):
    """U = G w Gᵀ: (9, C, O) -> ((m + 2)², C, O); a task is an input channel."""
    size = 8 if dtype == "float64" else 4
    to_planes = transform(FORMS[m].weight, dtype, lanes)

    def kernel(args, task, slot):
        c, o = args[W_CHANNELS], args[W_OUT_CHANNELS]
        table = args[W_SCRATCH] + slot * 128
        for tap in range(9):
            words(table)[tap] = args[W] + (tap * c + task) * args[W_ROW]
        for v in range(0, o, lanes):
            to_planes(table, v * size, args[OUT] + (task * o + v) * size, c * o * size)

    return kernel


def winograd(dtype, rows, vectors, tail, lanes, m, activation):
    """As `direct.direct`, for one group, channels that fill whole vectors, and taps that are 3 × 3 neighbours."""
    size = 8 if dtype == "float64" else 4
    planes = (m + 2) * (m + 2)
    block = max(vectors, tail) * lanes
    to_planes = transform(FORMS[m].input, dtype, lanes)
    to_pixels = transform_back(FORMS[m].output, dtype, lanes)
    rest = product_tile(dtype, rows, max(tail, 1), lanes, False)
    whole = product_tile(dtype, rows, vectors, lanes, False) if vectors else rest
    activate_pixels = late_activation(activation, dtype, lanes)

    @njit
    def multiply(args, table, outs, tiles, u, u_row, wide):
        """A plane of products: rows of transformed patches by some output channels of transformed weights."""
        c, stop = 0, args[IN_CHANNELS]
        while c < stop:
            _, end = next_part(0, c, stop, 1)
            more = 1 if c > 0 else 0
            for done in range(0, tiles, rows):
                at, out = table + done * 8, outs + done * 8
                if wide:
                    whole(at, 0, args[ONE_TAP], 0, 0, 1, c, end, u, u_row, out, 0, more, 0, 0, 0, rows, 0)
                else:
                    rest(at, 0, args[ONE_TAP], 0, 0, 1, c, end, u, u_row, out, 0, more, 0, 0, 0, rows, 0)
            c = end

    def kernel(args, task, slot):
        c, o, chunk, plane = args[IN_CHANNELS], args[OUT_CHANNELS], args[CHUNK], args[PLANE]
        chunks = -(-tile_count(args, m) // chunk)
        first = task % chunks * chunk
        tiles = min(chunk, tile_count(args, m) - first)
        cells = args[SCRATCH] + slot * args[SCRATCH_SLOT]
        table = cells + planes * 8
        outs = table + chunk * 8
        patches = -(-(outs + chunk * 8) // 64) * 64
        products = patches + planes * plane
        product_plane = chunk * block * size + PLANE_PAD
        for t in range(tiles):
            cells_of(args, first + t, m, words(cells))
            for v in range(0, c, lanes):
                to_planes(cells, v * size, patches + (t * c + v) * size, plane)
        start = task // chunks * args[W_PANEL]
        stop = min(start + args[W_PANEL], o)
        while start < stop:
            wide = vectors > 0 and stop - start >= vectors * lanes
            count = vectors * lanes if wide else stop - start
            for q in range(planes):
                for t in range(chunk):
                    words(table)[t] = patches + q * plane + min(t, tiles - 1) * c * size
                    words(outs)[t] = products + q * product_plane + t * block * size
                multiply(args, table, outs, tiles, args[U] + (q * c * o + start) * size, o * size, wide)
            for t in range(tiles):
                places_of(args, first + t, m, words(cells))
                for v in range(0, count, lanes):
                    source = products + (t * block + v) * size
                    offset = (start + v) * size
                    to_pixels(source, product_plane, cells, offset, 0, args[BIAS], args[RESIDUAL], args[ACTIVATION])
                if activation is not None:
                    for q in range(m * m):
                        if words(cells)[q] != 0:
                            activate_pixels(cells + q * 8, 1, start * size, args[SUMS], count)
            start += count

    return kernel


def outer(dtype, rows, vectors, tail, lanes, m):
    """(Bᵀ x B) ⊗ (A dy Aᵀ), summed over the tiles of a slab, for some output channels; as `outer.outer`, plane by
    plane."""
    size = 8 if dtype == "float64" else 4
    planes = (m + 2) * (m + 2)
    block = max(vectors, tail) * lanes
    from_x = transform(FORMS[m].input, dtype, lanes)
    from_dy = transform(transposed(FORMS[m].output), dtype, lanes)
    rest = outer_tile(dtype, rows, max(tail, 1), lanes, False)
    whole = outer_tile(dtype, rows, vectors, lanes, False) if vectors else rest
    numbers = pointers(number_type(dtype))

    @njit
    def add_products(args, table, patches, others, tiles, start, stop, sums):
        """Add the outer products of one plane of some tiles."""
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
                if wide:
                    whole(table, x, 1, tiles, 0, 0, dy, row, out, out_row, skip, 0)
                else:
                    rest(table, x, 1, tiles, 0, 0, dy, row, out, out_row, skip, 0)
            at += block if wide else stop - at

    def kernel(args, task, slot):
        c, o, chunk = args[C], args[OUT_C], args[TILES]
        slab = task % args[SLABS]
        start = task // args[SLABS] * args[PANEL]
        stop = min(start + args[PANEL], o)
        sums = args[SUM] + slab * planes * c * o * size
        for q in range(planes * c):
            row = numbers(sums + q * o * size)
            for i in range(start, stop):
                row[i] = 0
        cells = args[OUTER_SCRATCH] + slot * args[OUTER_SCRATCH_SLOT]
        table = cells + planes * 8
        patches = -(-(table + chunk * 8) // 64) * 64
        plane, other_plane = chunk * c * size + PLANE_PAD, chunk * args[PANEL] * size + PLANE_PAD
        others = patches + planes * plane
        first = slab * args[SLAB_TILES]
        end = min(first + args[SLAB_TILES], tile_count(args, m))
        while first < end:
            tiles = min(chunk, end - first)
            for t in range(tiles):
                cells_of(args, first + t, m, words(cells))
                for v in range(0, c, lanes):
                    from_x(cells, v * size, patches + (t * c + v) * size, plane)
                places_of(args, first + t, m, words(cells))
                for q in range(m * m):
                    if words(cells)[q] == 0:
                        words(cells)[q] = args[ZEROS] - start * size
                for v in range(0, stop - start, lanes):
                    from_dy(cells, (start + v) * size, others + (t * (stop - start) + v) * size, other_plane)
            for q in range(planes):
                plane_sums = sums + q * c * o * size
                add_products(args, table, patches + q * plane, others + q * other_plane, tiles, start, stop, plane_sums)
            first += chunk

    return kernel


def unweigh(dtype, lanes, m):
    """dw = Gᵀ M G: ((m + 2)², C, O) -> (9, C, O); a task is an input channel."""
    size = 8 if dtype == "float64" else 4
    to_taps = transform_back(transposed(FORMS[m].weight), dtype, lanes)

    def kernel(args, task, slot):
        c, o = args[W_CHANNELS], args[W_OUT_CHANNELS]
        table = args[W_SCRATCH] + slot * 128
        for tap in range(9):
            words(table)[tap] = args[OUT] + (tap * c + task) * args[W_ROW]
        for v in range(0, o, lanes):
            to_taps(args[W] + (task * o + v) * size, c * o * size, table, v * size, 0, 0, 0, 0)

    return kernel
