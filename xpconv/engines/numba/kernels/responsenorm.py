"""Local response normalisation: y = x · d^-beta, d = k + share · Σ x² of a channel's neighbours, and back.

Rows are taken a *stretch* at a time, which stays in the L1 cache, in *planes* of scratch: row after row with zeros
between them, so that sums and powers go through a plane without asking for borders, four vectors at a time. Only what
reads and writes the arrays themselves goes row by row. Powers are made of d^(-1/2) and its root, since beta is mostly
3/4: two roots and a quotient in place of a logarithm and an exponential.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.fields import Response
from xpconv.engines.numba.kernels.mathematics import real, root
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.sums import BLOCK
from xpconv.engines.numba.kernels.vectors import multiply_add, store_past_caches, vectors

(X, DY, OUT, ROWS, CHANNELS, BEFORE, AFTER, GAP, SHARE, K, PULL, QUARTERS, RUN, STRETCH, SCRATCH, SLOT, PLANE) = range(
    len(Response._fields)
)


def _tools(dtype: str, lanes: int) -> tuple[Callable[..., Any], ...]:
    """The functions that both directions are made of.

    ``clear(p, count)``; ``squares(x, start, rows, n, gap, to)``, those of each row behind ``gap`` zeros; ``around(p, i,
    count)``, the sums of four vectors from p[i], p[i + 1], ... on, so many of each; ``powers(d, quarters)``, which are
    d^(-quarters / 4) and 1 / d; ``put_four(p, i, ...)``.
    """
    load, store, load_some, _, splat = vectors(dtype, lanes)
    number, sqrt = number_type(dtype), root(dtype, lanes)
    two, three = 2 * lanes, 3 * lanes

    @njit
    def clear(p, count):
        for i in range(0, count, lanes):
            store(p, i, splat(number(0)))

    @njit
    def squares(x, start, rows, n, gap, to):
        whole = n // lanes * lanes
        for r in range(rows):
            i, j = start + r * n, gap + r * (n + gap)
            for c in range(0, whole, lanes):
                v = load(x, i + c)
                store(to, j + c, v * v)
            if whole < n:
                v = load_some(x, i + whole, n - whole)
                store(to, j + whole, v * v)  # its zeros are where zeros are, or where the next row goes

    @njit
    def around(p, i, count):
        a = b = c = d = splat(number(0))
        for first in range(i, i + count, BLOCK):
            e = f = g = h = splat(number(0))
            for j in range(first, min(first + BLOCK, i + count)):
                e, f = e + load(p, j), f + load(p, j + lanes)
                g, h = g + load(p, j + two), h + load(p, j + three)
            a, b, c, d = a + e, b + f, c + g, d + h
        return a, b, c, d

    @njit
    def powers(d, quarters):
        half = splat(number(1)) / sqrt(d)
        power = sqrt(half) if quarters % 2 else splat(number(1))
        for _ in range(quarters // 2):
            power = power * half
        return power, half * half

    @njit
    def put_four(p, i, a, b, c, d):
        store(p, i, a)
        store(p, i + lanes, b)
        store(p, i + two, c)
        store(p, i + three, d)

    return clear, squares, around, powers, put_four


def forward(dtype: str, lanes: int, stream: bool) -> Callable[..., Any]:
    """y of a run of rows; `Response` has the arguments."""
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    number, at = number_type(dtype), pointers(number_type(dtype))
    clear, squares, around, powers, put_four = _tools(dtype, lanes)
    put = store_past_caches if stream else store
    nbytes = number.bitwidth // 8

    def kernel(args, task, slot):
        x, y, n, gap, scratch = at(args[X]), at(args[OUT]), args[CHANNELS], args[GAP], args[SCRATCH] + slot * args[SLOT]
        near, by = at(scratch), at(scratch + args[PLANE] * nbytes)
        share, k, quarters = splat(number(real(args[SHARE]))), splat(number(real(args[K]))), args[QUARTERS]
        count, whole = args[BEFORE] + 1 + args[AFTER], n // lanes * lanes
        clear(near, args[PLANE])
        last = min((task + 1) * args[RUN], args[ROWS])
        for start in range(task * args[RUN], last, args[STRETCH]):
            rows = min(args[STRETCH], last - start)
            squares(x, start * n, rows, n, gap, near)
            for i in range(gap, gap + rows * (n + gap), 4 * lanes):
                a, b, c, d = around(near, i - args[BEFORE], count)
                a, _ = powers(multiply_add(a, share, k), quarters)
                b, _ = powers(multiply_add(b, share, k), quarters)
                c, _ = powers(multiply_add(c, share, k), quarters)
                d, _ = powers(multiply_add(d, share, k), quarters)
                put_four(by, i, a, b, c, d)
            for r in range(rows):
                i, j = (start + r) * n, gap + r * (n + gap)
                for c in range(0, whole, lanes):
                    put(y, i + c, load(x, i + c) * load(by, j + c))
                if whole < n:
                    left = n - whole
                    store_some(y, i + whole, load_some(x, i + whole, left) * load(by, j + whole), left)

    return kernel


def backward(dtype: str, lanes: int, stream: bool) -> Callable[..., Any]:
    """dx of a run of rows: dy d^-beta - pull x Σ dy x d^(-beta - 1), the sum over those that x is a neighbour of."""
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    number, at = number_type(dtype), pointers(number_type(dtype))
    clear, squares, around, powers, put_four = _tools(dtype, lanes)
    put = store_past_caches if stream else store
    nbytes = number.bitwidth // 8

    def kernel(args, task, slot):
        x, dy, dx, n, gap = at(args[X]), at(args[DY]), at(args[OUT]), args[CHANNELS], args[GAP]
        plane, scratch = args[PLANE] * nbytes, args[SCRATCH] + slot * args[SLOT]
        near, taken, by, inverse = at(scratch), at(scratch + plane), at(scratch + 2 * plane), at(scratch + 3 * plane)
        share, k, quarters = splat(number(real(args[SHARE]))), splat(number(real(args[K]))), args[QUARTERS]
        pull = splat(number(-real(args[PULL])))
        count, whole = args[BEFORE] + 1 + args[AFTER], n // lanes * lanes
        clear(near, 2 * args[PLANE])
        last = min((task + 1) * args[RUN], args[ROWS])
        for start in range(task * args[RUN], last, args[STRETCH]):
            rows = min(args[STRETCH], last - start)
            stop = gap + rows * (n + gap)
            squares(x, start * n, rows, n, gap, near)
            for i in range(gap, stop, 4 * lanes):
                a, b, c, d = around(near, i - args[BEFORE], count)
                a, e = powers(multiply_add(a, share, k), quarters)
                b, f = powers(multiply_add(b, share, k), quarters)
                c, g = powers(multiply_add(c, share, k), quarters)
                d, h = powers(multiply_add(d, share, k), quarters)
                put_four(by, i, a, b, c, d)
                put_four(inverse, i, e, f, g, h)
            for r in range(rows):
                i, j = (start + r) * n, gap + r * (n + gap)
                for c in range(0, whole, lanes):
                    own = load(dy, i + c) * load(by, j + c)
                    store(by, j + c, own)
                    store(taken, j + c, own * load(x, i + c) * load(inverse, j + c))
                if whole < n:
                    left = n - whole
                    own = load_some(dy, i + whole, left) * load_some(by, j + whole, left)
                    store_some(by, j + whole, own, left)
                    store_some(taken, j + whole, own * load_some(x, i + whole, left) * load(inverse, j + whole), left)
            for i in range(gap, stop, 4 * lanes):
                a, b, c, d = around(taken, i - args[AFTER], count)
                put_four(inverse, i, a, b, c, d)
            for r in range(rows):
                i, j = (start + r) * n, gap + r * (n + gap)
                for c in range(0, whole, lanes):
                    through = load(inverse, j + c) * load(x, i + c)
                    put(dx, i + c, multiply_add(through, pull, load(by, j + c)))
                if whole < n:
                    left = n - whole
                    through = load(inverse, j + whole) * load_some(x, i + whole, left)
                    store_some(dx, i + whole, multiply_add(through, pull, load(by, j + whole)), left)

    return kernel
