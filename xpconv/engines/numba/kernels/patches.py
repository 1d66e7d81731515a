"""Where the tiles of Winograd's forms lie: the cells of x that a tile reads, and the pixels of y that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def walk_over(form: Form) -> tuple[Callable[..., Any], ...]:
    """How many tiles there are, the cells and the pixels of one, and which planes it needs."""
    m0, m1, m2 = (axis.outputs for axis in form.axes)
    n0, n1, n2 = (axis.cells for axis in form.axes)
    step0, step1, step2 = (axis.step * axis.outputs for axis in form.axes)

    @njit
    def tile_count(args):
        return args[IMAGES] * (-(-args[COUNT0] // m0)) * (-(-args[COUNT1] // m1)) * (-(-args[COUNT2] // m2))

    @njit
    def split(args, tile):
        """The image and the place of a tile."""
        deep, down, across = -(-args[COUNT0] // m0), -(-args[COUNT1] // m1), -(-args[COUNT2] // m2)
        row = tile // across
        slab = row // down
        return slab // deep, slab % deep, row % down, tile % across

    @njit
    def cells_of(args, tile, table):
        """The addresses of the cells of x under a tile; those outside are zeros."""
        n, i, j, k = split(args, tile)
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
    def pixels_of(args, tile, table):
        """The addresses of the pixels of y in a tile, 0 for those beyond the edge."""
        n, i, j, k = split(args, tile)
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

    @njit
    def inside(args, tile):
        """How many of a tile's pixels are inside, on each axis."""
        _, i, j, k = split(args, tile)
        return min(args[COUNT0] - i * m0, m0), min(args[COUNT1] - j * m1, m1), min(args[COUNT2] - k * m2, m2)

    first_outputs = form.first_outputs

    @njit
    def needs_of(args, tile, flags):
        """Whether each plane of a tile is added to pixels that are inside."""
        a, b, c = inside(args, tile)
        for q in range(len(first_outputs)):
            i, j, k = first_outputs[q]
            flags[q] = 1 if i < a and j < b and k < c else 0

    return tile_count, cells_of, pixels_of, needs_of
