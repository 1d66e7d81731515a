"""Batch normalisation by columns: statistics of slabs, what follows from them for each channel, and a pass over rows.

Squares are summed about a *pivot*, the mean of a slab's first rows, which lies among the data: little is lost however
far those are from zero. Slabs are merged in double precision, after T. F. Chan, G. H. Golub and R. J. LeVeque,
"Algorithms for computing the sample variance", The American Statistician 37(3), 1983.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.kernels.mathematics import activate, real
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.sums import BLOCK, doubles, end_put, ends, row_tools, together
from xpconv.engines.numba.kernels.vectors import choose, multiply_add, vectors

FIRST = 32  # rows whose mean is the pivot

# Rows of the table that a forward pass leaves, (6, channels): y = (x - MEAN) · SCALE + SHIFT.
MEAN, DRIFT, VAR, RSTD, SCALE, SHIFT = range(6)  # the drift is the true mean minus its rounding


def moments(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """Sums of x - pivot and of its square over a slab. Arguments: x, rows, channels, rows in a slab, parts, their step.

    Parts of a slab, `step` numbers apart: (5, channels), the pivot, the two sums, and those of a block.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, ragged)
    clear, gather = row_tools(dtype, lanes, ragged)
    nbytes = number.bitwidth // 8

    @njit
    def four(x, i, n, left, p):
        a, b = get(x, i, left) - p, get(x, i + n, left) - p
        c, d = get(x, i + 2 * n, left) - p, get(x, i + 3 * n, left) - p
        return (a + b) + (c + d), multiply_add(a, a, b * b) + multiply_add(c, c, d * d)

    def kernel(args, task, slot):
        x, rows, n, slab = at(args[0]), args[1], args[2], args[3]
        parts = at(args[4] + task * args[5] * nbytes)
        sums, squares, block, block_squares = n, 2 * n, 3 * n, 4 * n
        start, last = slab * task, min(slab * (task + 1), rows)
        clear(parts, 0, 3 * n)
        size = min(FIRST, last - start)
        gather(parts, 0, x, start, start + size, n)
        share = splat(number(1.0 / size))
        for c in range(0, n, lanes):
            put(parts, c, get(parts, c, n - c) * share, n - c)
        for first in range(start, last, BLOCK):
            stop = min(first + BLOCK, last)
            clear(parts, block, 2 * n)
            eights = together(first, stop, 8, n)
            for r in range(first, eights, 8):
                for c in range(0, n, lanes):
                    i, left = r * n + c, n - c
                    p = get(parts, c, left)
                    one, one_squares = four(x, i, n, left, p)
                    two, two_squares = four(x, i + 4 * n, n, left, p)
                    put(parts, block + c, get(parts, block + c, left) + (one + two), left)
                    square = get(parts, block_squares + c, left) + (one_squares + two_squares)
                    put(parts, block_squares + c, square, left)
            for r in range(eights, stop):
                for c in range(0, n, lanes):
                    left = n - c
                    a = get(x, r * n + c, left) - get(parts, c, left)
                    put(parts, block + c, get(parts, block + c, left) + a, left)
                    put(parts, block_squares + c, multiply_add(a, a, get(parts, block_squares + c, left)), left)
            gather(parts, sums, parts, 3, 4, n)
            gather(parts, squares, parts, 4, 5, n)

    return kernel


def _line_of(dtype: str) -> Callable[..., Any]:
    """``line(n, table, gamma, beta, eps, first, last)``: scale and shift of some channels, from their statistics."""
    number, at = number_type(dtype), pointers(number_type(dtype))

    @njit
    def line(n, table, gamma, beta, eps, first, last):
        for c in range(first, last):
            rstd = 1.0 / math.sqrt(table[VAR * n + c] + eps)
            scale = number(rstd * at(gamma)[c]) if gamma != 0 else number(rstd)
            shift = float(at(beta)[c]) if beta != 0 else 0.0
            table[RSTD * n + c], table[SCALE * n + c] = number(rstd), scale
            table[SHIFT * n + c] = number(shift - float(table[DRIFT * n + c]) * float(scale))

    return line


def merge(dtype: str, lanes: int, panel: int) -> Callable[..., Any]:
    """Mean, drift and variance of a panel of channels, and what `line` makes of them.

    Arguments: parts of `moments`, slabs, their step, rows, rows in a slab, then those of `line`. With n rows, pivot p
    and sums d and q of a slab, the mean is Σ (n p + d) / N, and the squares about m are q + 2 (p - m) d + n (p - m)².
    The rounded mean serves as m; the drift comes out of the same sums.
    """
    at, splat = pointers(number_type(dtype)), vectors("float64", lanes).splat
    get, put = doubles(dtype, lanes)
    line = _line_of(dtype)

    @njit
    def merged(parts, slabs, step, rows, n, slab, c, about):
        """The sums over all rows of x - about and of its square, in blocks of slabs."""
        total, squares = splat(0.0), splat(0.0)
        for first in range(0, slabs, BLOCK):
            block, block_squares = splat(0.0), splat(0.0)
            for s in range(first, min(first + BLOCK, slabs)):
                i, left = step * s + c, n - c
                away, d, q = get(parts, i, left) - about, get(parts, i + n, left), get(parts, i + 2 * n, left)
                shift = splat(float(min(slab, rows - s * slab))) * away
                block = block + (shift + d)
                block_squares = block_squares + (q + (d + d + shift) * away)
            total = total + block
            squares = squares + block_squares
        return total, squares

    def kernel(args, task, slot):
        parts, slabs, step, rows, slab, n, table = at(args[0]), args[1], args[2], args[3], args[4], args[5], at(args[6])
        share = splat(1.0 / max(rows, 1))
        first, last = task * panel, min((task + 1) * panel, n)
        for c in range(first, last, lanes):
            left = n - c
            total, _ = merged(parts, slabs, step, rows, n, slab, c, splat(0.0))
            put(table, MEAN * n + c, total * share, left)
            total, squares = merged(parts, slabs, step, rows, n, slab, c, get(table, MEAN * n + c, left))
            drift = total * share
            var = squares * share - drift * drift
            put(table, DRIFT * n + c, drift, left)
            put(table, VAR * n + c, choose(var < splat(0.0), splat(0.0), var), left)
        line(n, table, args[7], args[8], real(args[9]), first, last)

    return kernel


def line(dtype: str, panel: int) -> Callable[..., Any]:
    """Scale and shift of a panel of channels. Arguments: channels, table, gamma or 0, beta or 0, eps as a double."""
    at, line = pointers(number_type(dtype)), _line_of(dtype)

    def kernel(args, task, slot):
        line(args[0], at(args[1]), args[2], args[3], real(args[4]), task * panel, min((task + 1) * panel, args[0]))

    return kernel


def normalise(
    dtype: str, lanes: int, ragged: bool, activation: str | None, joined: bool, stream: bool
) -> Callable[..., Any]:
    """y of a run of rows. Arguments: x, y, rows, channels, rows in a run, table, and what is added to it if ``joined``.

    The last run comes first: what the pass over x before this one read last may still be in the cache.
    """
    at = pointers(number_type(dtype))
    get, _ = ends(dtype, lanes, ragged)
    put = end_put(dtype, lanes, ragged, stream)
    finish = identity if activation is None else activate(activation, dtype, lanes)

    @njit
    def value(x, other, i, left, mean, scale, shift):
        z = multiply_add(get(x, i, left) - mean, scale, shift)
        if joined:
            z = z + get(other, i, left)
        return finish(z)

    def kernel(args, task, slot):
        x, y, rows, n, run, table = at(args[0]), at(args[1]), args[2], args[3], args[4], at(args[5])
        other = at(args[6])
        first = ((rows - 1) // run - task) * run
        last = min(first + run, rows)
        fours = together(first, last, 4, n)
        for r in range(first, fours, 4):
            for c in range(0, n, lanes):
                left = n - c
                mean = get(table, c, left)
                scale, shift = get(table, SCALE * n + c, left), get(table, SHIFT * n + c, left)
                for i in range(r * n + c, r * n + c + 4 * n, n):
                    put(y, i, value(x, other, i, left, mean, scale, shift), left)
        for r in range(fours, last):
            for c in range(0, n, lanes):
                left, i = n - c, r * n + c
                scale, shift = get(table, SCALE * n + c, left), get(table, SHIFT * n + c, left)
                put(y, i, value(x, other, i, left, get(table, c, left), scale, shift), left)

    return kernel


@njit
def identity(z):
    return z
