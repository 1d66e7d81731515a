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
from xpconv.engines.numba.kernels.sums import (
    BLOCK,
    adding_four,
    ahead_by,
    chunk_of,
    doubles,
    end_put,
    ends,
    in_panels,
    row_tools,
    together,
)
from xpconv.engines.numba.kernels.vectors import choose, multiply_add, vectors

FIRST = 32  # rows whose mean is the pivot, in long slabs

# Rows of the table that a forward pass leaves, (6, channels): y = (x - MEAN) · SCALE + SHIFT.
MEAN, DRIFT, VAR, RSTD, SCALE, SHIFT = range(6)  # the drift is the true mean minus its rounding


def slab_moments(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """``moments(x, start, last, n, parts, near)``: sums over rows of x - pivot and of its square.

    Parts: (5, channels), the pivot, the two sums, and those of a block.
    """
    number, (load, _, _, _, splat) = number_type(dtype), vectors(dtype, lanes)
    get, put = ends(dtype, lanes, ragged)
    clear, gather = row_tools(dtype, lanes, ragged)
    four_ahead, add_four = ahead_by(4 * lanes, lanes), adding_four(dtype, lanes)
    nbytes = number.bitwidth // 8

    @njit
    def four(x, i, n, left, p):
        a, b = get(x, i, left) - p, get(x, i + n, left) - p
        c, d = get(x, i + 2 * n, left) - p, get(x, i + 3 * n, left) - p
        return (a + b) + (c + d), multiply_add(a, a, b * b) + multiply_add(c, c, d * d)

    @njit
    def panel(x, first, last, n, c, parts):
        """Add the sums of a block of four vectors of channels, which stay in registers."""
        two, three = 2 * lanes, 3 * lanes
        p0, p1, p2, p3 = load(parts, c), load(parts, c + lanes), load(parts, c + two), load(parts, c + three)
        zero = splat(number(0.0))
        s0, s1, s2, s3, q0, q1, q2, q3 = zero, zero, zero, zero, zero, zero, zero, zero
        for i in range(first * n + c, last * n + c, n):
            a0, a1 = load(x, i) - p0, load(x, i + lanes) - p1
            a2, a3 = load(x, i + two) - p2, load(x, i + three) - p3
            s0, s1, s2, s3 = s0 + a0, s1 + a1, s2 + a2, s3 + a3
            q0, q1 = multiply_add(a0, a0, q0), multiply_add(a1, a1, q1)
            q2, q3 = multiply_add(a2, a2, q2), multiply_add(a3, a3, q3)
        add_four(parts, n + c, s0, s1, s2, s3)
        add_four(parts, 2 * n + c, q0, q1, q2, q3)

    @njit
    def moments(x, start, last, n, parts, near):
        sums, squares, block, block_squares = n, 2 * n, 3 * n, 4 * n
        clear(parts, 0, 3 * n)
        size = min(FIRST, (last - start + 15) // 16)
        gather(parts, 0, x, start, start + size, n)
        share = splat(number(1.0 / size))
        for c in range(0, n, lanes):
            put(parts, c, get(parts, c, n - c) * share, n - c)
        chunk = chunk_of(n * nbytes)
        for first in range(start, last, BLOCK):
            stop = min(first + BLOCK, last)
            if in_panels(n, 4 * lanes, near):
                for c in range(0, n, 4 * lanes):
                    panel(x, first, stop, n, c, parts)
                continue
            clear(parts, block, 2 * n)
            for r in range(first, stop, chunk):
                until, ahead = min(r + chunk, stop), (r + chunk) * n
                fours = r + (until - r) // 4 * 4
                for c in range(0, n, lanes):
                    left = n - c
                    pivot = get(parts, c, left)
                    total, square = get(parts, block + c, left), get(parts, block_squares + c, left)
                    for i in range(r * n + c, fours * n, 4 * n):
                        ahead = four_ahead(x, ahead)
                        more, more_squares = four(x, i, n, left, pivot)
                        total, square = total + more, square + more_squares
                    for i in range(fours * n + c, until * n, n):
                        a = get(x, i, left) - pivot
                        total, square = total + a, multiply_add(a, a, square)
                    put(parts, block + c, total, left)
                    put(parts, block_squares + c, square, left)
            gather(parts, sums, parts, 3, 4, n)
            gather(parts, squares, parts, 4, 5, n)

    return moments


def moments(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """The parts of a slab. Arguments: x, rows, channels, rows in a slab, parts, numbers from slab to slab."""
    at, of_slab = pointers(number_type(dtype)), slab_moments(dtype, lanes, ragged)
    nbytes = number_type(dtype).bitwidth // 8

    def kernel(args, task, slot):
        start = args[3] * task
        of_slab(
            at(args[0]), start, min(start + args[3], args[1]), args[2], at(args[4] + task * args[5] * nbytes), False
        )

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


def merger(dtype: str, lanes: int) -> Callable[..., Any]:
    """``merged(parts, slabs, step, rows, n, slab, c, about)``: sums over all rows of x - about and of its square.

    For channels from c on, in blocks of slabs. With n rows, pivot p and sums d and q of a slab, it has n p + d of the
    rows themselves, and of the squares about m q + 2 (p - m) d + n (p - m)².
    """
    splat, (get, _) = vectors("float64", lanes).splat, doubles(dtype, lanes)

    @njit
    def merged(parts, slabs, step, rows, n, slab, c, about):
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

    return merged


def merge(dtype: str, lanes: int, panel: int) -> Callable[..., Any]:
    """Mean, drift and variance of a panel of channels, and what `line` makes of them.

    Arguments: parts of `moments`, slabs, their step, rows, rows in a slab, those of `line`, and where mean and variance
    go, (2, channels). Squares are taken about the rounded mean; the drift comes out of the same sums.
    """
    at, splat = pointers(number_type(dtype)), vectors("float64", lanes).splat
    get, put = doubles(dtype, lanes)
    line, merged = _line_of(dtype), merger(dtype, lanes)

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
        stats = at(args[10])
        for c in range(first, last):
            stats[c], stats[n + c] = table[MEAN * n + c] + table[DRIFT * n + c], table[VAR * n + c]

    return kernel


def line(dtype: str, panel: int) -> Callable[..., Any]:
    """Scale and shift of a panel of channels. Arguments: channels, table, gamma or 0, beta or 0, eps as a double."""
    at, line = pointers(number_type(dtype)), _line_of(dtype)

    def kernel(args, task, slot):
        line(args[0], at(args[1]), args[2], args[3], real(args[4]), task * panel, min((task + 1) * panel, args[0]))

    return kernel


def advance(dtype: str) -> Callable[..., Any]:
    """A running statistic moved to the batch's: r += momentum · (factor · b - r), rounded as NumPy does.

    Arguments: channels, momentum, then r, b and the factor of each statistic, whose task it is; numbers as doubles.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))

    def kernel(args, task, slot):
        momentum, i = number(real(args[1])), 2 + 3 * task
        running, batch, factor = at(args[i]), at(args[i + 1]), number(real(args[i + 2]))
        for c in range(args[0]):
            running[c] = running[c] + momentum * (factor * batch[c] - running[c])

    return kernel


def row_normaliser(
    dtype: str, lanes: int, ragged: bool, activation: str | None, joined: bool, stream: bool
) -> Callable[..., Any]:
    """``normalised(x, y, other, first, last, n, table, near)``: y of some rows, x being near if a cache has it."""
    get, _ = ends(dtype, lanes, ragged)
    put, load = end_put(dtype, lanes, ragged, stream), vectors(dtype, lanes).load
    finish = identity if activation is None else activate(activation, dtype, lanes)

    @njit
    def value(x, other, i, left, mean, scale, shift):
        z = multiply_add(get(x, i, left) - mean, scale, shift)
        if joined:
            z = z + get(other, i, left)
        return finish(z)

    @njit
    def panel(x, y, other, first, last, n, c, table):
        """Of four vectors of channels, whose numbers of the table stay in registers."""
        two, three, i = 2 * lanes, 3 * lanes, c
        m0, m1, m2, m3 = load(table, i), load(table, i + lanes), load(table, i + two), load(table, i + three)
        i = SCALE * n + c
        s0, s1, s2, s3 = load(table, i), load(table, i + lanes), load(table, i + two), load(table, i + three)
        i = SHIFT * n + c
        t0, t1, t2, t3 = load(table, i), load(table, i + lanes), load(table, i + two), load(table, i + three)
        for i in range(first * n + c, last * n + c, n):
            put(y, i, value(x, other, i, n, m0, s0, t0), n)
            put(y, i + lanes, value(x, other, i + lanes, n, m1, s1, t1), n)
            put(y, i + two, value(x, other, i + two, n, m2, s2, t2), n)
            put(y, i + three, value(x, other, i + three, n, m3, s3, t3), n)

    @njit
    def normalised(x, y, other, first, last, n, table, near):
        if in_panels(n, 4 * lanes, near):
            for c in range(0, n, 4 * lanes):
                panel(x, y, other, first, last, n, c, table)
            return
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

    return normalised


def normalise(
    dtype: str, lanes: int, ragged: bool, activation: str | None, joined: bool, stream: bool
) -> Callable[..., Any]:
    """y of a run of rows. Arguments: x, y, rows, channels, rows in a run, table, and what is added to it if ``joined``.

    The last run comes first: what the pass over x before this one read last may still be in the cache.
    """
    at = pointers(number_type(dtype))
    of_rows = row_normaliser(dtype, lanes, ragged, activation, joined, stream)

    def kernel(args, task, slot):
        rows, run = args[2], args[4]
        first = ((rows - 1) // run - task) * run
        last = min(first + run, rows)
        of_rows(at(args[0]), at(args[1]), at(args[6]), first, last, args[3], at(args[5]), False)

    return kernel


@njit
def identity(z):
    return z
