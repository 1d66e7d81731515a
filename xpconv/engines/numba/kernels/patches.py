"""Where the tiles of Winograd's forms lie: the cells of x that a tile reads, and the pixels of y that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit

from xpconv.engines.numba.forms import Form
from xpconv.engines.numba.kernels.memory import words
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
    needs_of: Callable[..., Any]


def walk_over(form: Form) -> Patches:
    """How many tiles there are, where each is, its cells and its pixels, and which planes it needs."""
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
        image = args[X] + n * args[X_IMAGE]
        at = 0
        for a in range(i, i + n0):
            for b in range(j, j + n1):
                row = image + a * args[X0] + b * args[X1]
                inside = 0 <= a < args[SIZE0] and 0 <= b < args[SIZE1]
                for c in range(k, k + n2):
                    table[at] = row + c * args[X2] if inside and 0 <= c < args[SIZE2] else args[ZEROS]
                    at += 1

    @njit
    def pixels_of(args, spot, table):
        """The addresses of the pixels of y in a tile, 0 for those beyond the edge."""
        n, i, j, k = spot
        i, j, k = i * m0, j * m1, k * m2
        image = args[Y] + n * args[Y_IMAGE]
        at = 0
        for a in range(i, i + m0):
            for b in range(j, j + m1):
                row = image + a * args[Y0] + b * args[Y1]
                inside = a < args[COUNT0] and b < args[COUNT1]
                for c in range(k, k + m2):
                    table[at] = row + c * args[Y2] if inside and c < args[COUNT2] else 0
                    at += 1

    first_outputs = form.first_outputs

    @njit
    def needs_of(args, spot, flags):
        """Whether each plane of a tile is added to pixels that are inside; answers whether all of them are."""
        _, i, j, k = spot
        a, b, c = args[COUNT0] - i * m0, args[COUNT1] - j * m1, args[COUNT2] - k * m2
        for q in range(len(first_outputs)):
            i, j, k = first_outputs[q]
            flags[q] = 1 if i < a and j < b and k < c else 0
        return a >= m0 and b >= m1 and c >= m2

    return Patches(tile_count, spot_of, after, cells_of, pixels_of, needs_of)
