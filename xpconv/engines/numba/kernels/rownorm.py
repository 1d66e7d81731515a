"""Normalisation of rows: each by its own mean and variance, with scales and shifts that go by column.

A row is read three times, of which the cache serves two: for its mean, for the squares about that, and for y. Backward
reads it twice, for its sums and for dx; columns are summed in slabs, as in `sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.fields import ROW_KEPT
from xpconv.engines.numba.kernels.mathematics import real
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.softmax import total_of
from xpconv.engines.numba.kernels.sums import BLOCK, end_put, ends, row_tools
from xpconv.engines.numba.kernels.vectors import below, choose, multiply_add, vectors

# What is kept of each row, (rows, ROW_KEPT).
MEAN, DRIFT, RSTD = range(ROW_KEPT)  # the drift is the true mean minus its rounding


def _within(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """``within(vector, left)``: zero beyond the end of a row."""
    splat, number = vectors(dtype, lanes).splat, number_type(dtype)

    @njit
    def cut(vector, left):
        return choose(below(vector, left), vector, splat(number(0.0)))

    @njit
    def whole(vector, left):
        return vector

    return cut if ragged else whole


def _moments(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """``moments(x, start, n, share)``: mean, drift and variance of a row, share being 1 / n."""
    number, (load, _, _, _, splat) = number_type(dtype), vectors(dtype, lanes)
    get, _ = ends(dtype, lanes, ragged)
    within = _within(dtype, lanes, ragged)

    @njit
    def moments(x, start, n, share):
        zero = splat(number(0.0))
        total = zero
        for first in range(0, n, BLOCK * lanes):
            stop = min(first + BLOCK * lanes, n)
            fours = first + (stop - first) // (4 * lanes) * (4 * lanes)
            a, b, c, d = zero, zero, zero, zero  # no addition waits for the one before it
            for i in range(start + first, start + fours, 4 * lanes):
                a, b = a + load(x, i), b + load(x, i + lanes)
                c, d = c + load(x, i + 2 * lanes), d + load(x, i + 3 * lanes)
            for i in range(fours, stop, lanes):
                a = a + get(x, start + i, n - i)
            total = total + ((a + b) + (c + d))
        mean = number(float(total_of(total)) * share)
        about, total, squares = splat(mean), zero, zero
        for first in range(0, n, BLOCK * lanes):
            stop = min(first + BLOCK * lanes, n)
            twos = first + (stop - first) // (2 * lanes) * (2 * lanes)
            a, b, a_squares, b_squares = zero, zero, zero, zero
            for i in range(start + first, start + twos, 2 * lanes):
                one, two = load(x, i) - about, load(x, i + lanes) - about
                a, b = a + one, b + two
                a_squares, b_squares = multiply_add(one, one, a_squares), multiply_add(two, two, b_squares)
            for i in range(twos, stop, lanes):
                rest = within(get(x, start + i, n - i) - about, n - i)
                a, a_squares = a + rest, multiply_add(rest, rest, a_squares)
            total = total + (a + b)
            squares = squares + (a_squares + b_squares)
        drift = float(total_of(total)) * share
        var = float(total_of(squares)) * share - drift * drift
        if var < 0.0:
            var = 0.0
        return mean, drift, var

    return moments


def forward(dtype: str, lanes: int, ragged: bool, stream: bool) -> Callable[..., Any]:
    """y of a run of rows. Arguments: x, y, rows, columns, rows in a run, table of what is kept or 0, gamma, beta, their
    rows, eps as a double.

    Row r has the scales and shifts of row r modulo those that there are.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, _ = ends(dtype, lanes, ragged)
    put = end_put(dtype, lanes, ragged, stream)
    moments = _moments(dtype, lanes, ragged)

    def kernel(args, task, slot):
        x, y, n, gamma, beta, period, eps = (
            at(args[0]),
            at(args[1]),
            args[3],
            at(args[6]),
            at(args[7]),
            args[8],
            args[9],
        )
        table = at(args[5])
        first, last = task * args[4], min((task + 1) * args[4], args[2])
        line = first % period
        for r in range(first, last):
            start, of_line = r * n, line * n
            mean, drift, var = moments(x, start, n, 1.0 / n)
            rstd = 1.0 / math.sqrt(var + real(eps))
            if args[5] != 0:
                table[ROW_KEPT * r + MEAN], table[ROW_KEPT * r + DRIFT] = mean, number(drift)
                table[ROW_KEPT * r + RSTD] = number(rstd)
            about, scale, less = splat(mean), splat(number(rstd)), splat(number(-drift * rstd))
            for c in range(0, n, lanes):
                left = n - c
                hat = multiply_add(get(x, start + c, left) - about, scale, less)
                put(y, start + c, multiply_add(hat, get(gamma, of_line + c, left), get(beta, of_line + c, left)), left)
            line = line + 1 if line + 1 < period else 0

    return kernel


def backward(dtype: str, lanes: int, ragged: bool, stream: bool) -> Callable[..., Any]:
    """dx of a slab of rows, and its sums of dy · x̂ and dy by column.

    Arguments: x, dy, dx or 0, rows, columns, rows in a slab, table, gamma, its rows, parts, numbers from slab to slab.
    Parts of a slab: (4, rows of gamma, columns), the two sums, and those of a block. With g = dy · gamma:
    dx = rstd (g - Σ g / n - x̂ Σ g x̂ / n).
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, ragged)[0], end_put(dtype, lanes, ragged, stream)
    sums = _sums(dtype, lanes, ragged)
    clear, gather = row_tools(dtype, lanes, ragged)
    nbytes = number.bitwidth // 8

    def kernel(args, task, slot):
        x, dy, dx, n, slab, table, period = (
            at(args[0]),
            at(args[1]),
            at(args[2]),
            args[4],
            args[5],
            at(args[6]),
            args[8],
        )
        place = args[9] + task * args[10] * nbytes
        parts, columns = at(place), period * n
        clear(parts, 0, 2 * columns)
        last = min(slab * (task + 1), args[3])
        for first in range(slab * task, last, BLOCK):
            clear(parts, 2 * columns, 2 * columns)
            for r in range(first, min(first + BLOCK, last)):
                start, of_line = r * n, r % period * n
                gamma = at(args[7] + of_line * nbytes)
                weighted, plain = (
                    at(place + (2 * columns + of_line) * nbytes),
                    at(place + (3 * columns + of_line) * nbytes),
                )
                rstd = float(table[ROW_KEPT * r + RSTD])
                about, scale = splat(table[ROW_KEPT * r + MEAN]), splat(table[ROW_KEPT * r + RSTD])
                less = splat(number(-float(table[ROW_KEPT * r + DRIFT]) * rstd))
                total, product = sums(x, dy, start, n, about, scale, less, gamma, weighted, plain)
                factor, offset = splat(number(-rstd * product / n)), splat(number(-rstd * total / n))
                if args[2] != 0:
                    for c in range(0, n, lanes):
                        left = n - c
                        hat = multiply_add(get(x, start + c, left) - about, scale, less)
                        g = get(dy, start + c, left) * get(gamma, c, left)
                        put(dx, start + c, multiply_add(g, scale, multiply_add(hat, factor, offset)), left)
            gather(parts, 0, parts, 2, 3, columns)
            gather(parts, columns, parts, 3, 4, columns)

    return kernel


def _sums(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """``sums``: Σ g and Σ g x̂ of a row, whose dy · x̂ and dy are added to a block's sums."""
    number, splat = number_type(dtype), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, ragged)
    within = _within(dtype, lanes, ragged)

    @njit
    def sums(x, dy, start, n, about, rstd, less, gamma, weighted, plain):
        zero = splat(number(0.0))
        total, product = zero, zero
        for first in range(0, n, BLOCK * lanes):
            block, block_product = zero, zero
            for c in range(first, min(first + BLOCK * lanes, n), lanes):
                left = n - c
                hat = within(multiply_add(get(x, start + c, left) - about, rstd, less), left)
                d = get(dy, start + c, left)
                g = d * get(gamma, c, left)
                block = block + g
                block_product = multiply_add(g, hat, block_product)
                put(weighted, c, multiply_add(d, hat, get(weighted, c, left)), left)
                put(plain, c, get(plain, c, left) + d, left)
            total = total + block
            product = product + block_product
        return float(total_of(total)), float(total_of(product))

    return sums
