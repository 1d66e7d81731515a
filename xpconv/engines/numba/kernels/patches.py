"""Where the tiles of Winograd's forms lie: the cells of x that a tile reads, and the pixels of y that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit, types

from xpconv.engines.numba.fields import CACHE_LINE
from xpconv.engines.numba.forms import Form
from xpconv.engines.numba.kernels.memory import fetch, pointers, words
from xpconv.engines.numba.kernels.walk import (
    COUNT0,
    COUNT1,
    COUNT2,
    IMAGES,
    SIZE0,
    SIZE1,
    SIZE2,
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


class Patches(NamedTuple):
    """What kernels ask about the tiles of a form."""

    tile_count: Callable[..., Any]
    spot_of: Callable[..., Any]
    after: Callable[..., Any]
    cells_of: Callable[..., Any]
    pixels_of: Callable[..., Any]
    divides: Callable[..., Any]
    needs_of: Callable[..., Any]
    fetch_tiles: Callable[..., Any]


_bytes = pointers(types.int8)


@njit
def _fetch(place, start, stop):
    """Have some bytes from an address on brought near."""
    for line in range(start, stop, CACHE_LINE):
        fetch(_bytes(place), line)


def walk_over(form: Form) -> Patches:
    """How many tiles there are, where each is, its cells and its pixels, which planes it needs, and fetching some."""
    m0, m1, m2 = (axis.outputs for axis in form.axes)
    n0, n1, n2 = (axis.cells for axis in form.axes)
    step0, step1, step2 = (axis.step * axis.outputs for axis in form.axes)

    @njit
    def tile_count(args):
        return args[IMAGES] * (-(-args[COUNT0] // m0)) * (-(-args[COUNT1] // m1)) * (-(-args[COUNT2] // m2))

    @njit
    def spot_of(args, tile):
        """The image of a tile, and its place there on each axis."""
        deep, down, across = -(-args[COUNT0] // m0), -(-args[COUNT1] // m1), -(-args[COUNT2] // m2)
        row = tile // across
        slab = row // down
        return slab // deep, slab % deep, row % down, tile % across

    @njit
    def after(args, spot):
        """The spot of the tile that comes next."""
        n, i, j, k = spot
        if (k + 1) * m2 < args[COUNT2]:
            return n, i, j, k + 1
        if (j + 1) * m1 < args[COUNT1]:
            return n, i, j + 1, 0
        if (i + 1) * m0 < args[COUNT0]:
            return n, i + 1, 0, 0
        return n + 1, 0, 0, 0

    @njit
    def cells_of(args, spot, table):
        """The addresses of the cells of x under a tile; those outside are zeros."""
        n, i, j, k = spot
        taps = words(args[TAPS])
        i, j, k = i * step0 + taps[0], j * step1 + taps[1], k * step2 + taps[2]
        x0, x1, x2 = args[X0], args[X1], args[X2]  # read once: to the compiler, what is written might be these
        corner = args[X] + n * args[X_IMAGE] + i * x0 + j * x1 + k * x2
        inside = i >= 0 and j >= 0 and k >= 0
        inside = inside and i + n0 <= args[SIZE0] and j + n1 <= args[SIZE1] and k + n2 <= args[SIZE2]
        at = 0
        for a in range(n0):
            for b in range(n1):
                row = corner + a * x0 + b * x1
                if inside:
                    for c in range(n2):
                        table[at + c] = row + c * x2
                else:
                    _look_up_row(args, i + a, j + b, k, row, table, at)
                at += n2

    @njit
    def _look_up_row(args, a, b, k, row, table, at):
        """The addresses of a row of cells some of which may be outside."""
        there = 0 <= a < args[SIZE0] and 0 <= b < args[SIZE1]
        for c in range(n2):
            table[at + c] = row + c * args[X2] if there and 0 <= k + c < args[SIZE2] else args[ZEROS]

    @njit
    def pixels_of(args, spot, table):
        """The addresses of the pixels of y in a tile, 0 for those beyond the edge."""
        n, i, j, k = spot
        i, j, k = i * m0, j * m1, k * m2
        y0, y1, y2 = args[Y0], args[Y1], args[Y2]
        count0, count1, count2 = args[COUNT0] - i, args[COUNT1] - j, args[COUNT2] - k
        corner = args[Y] + n * args[Y_IMAGE] + i * y0 + j * y1 + k * y2
        at = 0
        for a in range(m0):
            for b in range(m1):
                for c in range(m2):
                    there = a < count0 and b < count1 and c < count2
                    table[at] = corner + a * y0 + b * y1 + c * y2 if there else 0
                    at += 1

    first_outputs = form.first_outputs

    @njit
    def divides(args):
        """Whether tiles cover the pixels and no more, so that each of them needs all its planes."""
        return args[COUNT0] % m0 == 0 and args[COUNT1] % m1 == 0 and args[COUNT2] % m2 == 0

    @njit
    def needs_of(args, spot, flags):
        """Whether each plane of a tile is added to pixels that are inside."""
        _, i, j, k = spot
        a, b, c = args[COUNT0] - i * m0, args[COUNT1] - j * m1, args[COUNT2] - k * m2
        for q in range(len(first_outputs)):
            i, j, k = first_outputs[q]
            flags[q] = 1 if i < a and j < b and k < c else 0

    @njit
    def fetch_tiles(args, spot, count, x_bytes, start, stop):
        """Have some tiles brought near, all of their cells of x and some bytes of their pixels of y; answers the spot
        after them. Places beyond the arrays do no harm.
        """
        taps = words(args[TAPS])
        for _ in range(count):
            n, i, j, k = spot
            cell = args[X] + n * args[X_IMAGE]
            cell += (
                (i * step0 + taps[0]) * args[X0] + (j * step1 + taps[1]) * args[X1] + (k * step2 + taps[2]) * args[X2]
            )
            for a in range(n0 - step0, n0):  # the other cells are those of tiles before
                for b in range(n1 - step1, n1):
                    for c in range(n2 - step2, n2):
                        _fetch(cell + a * args[X0] + b * args[X1] + c * args[X2], 0, x_bytes)
            pixel = args[Y] + n * args[Y_IMAGE] + i * m0 * args[Y0] + j * m1 * args[Y1] + k * m2 * args[Y2]
            for a in range(m0):
                for b in range(m1):
                    for c in range(m2):
                        _fetch(pixel + a * args[Y0] + b * args[Y1] + c * args[Y2], start, stop)
            spot = after(args, spot)
        return spot

    return Patches(tile_count, spot_of, after, cells_of, pixels_of, divides, needs_of, fetch_tiles)
