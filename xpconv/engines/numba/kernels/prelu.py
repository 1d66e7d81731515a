"""The rectifier whose slopes are learnt: x and y without gaps, a vector of slopes beside each vector of x.

Slopes are given as a *row*: as often as it takes to be vectors long, and by as many more as a vector has lanes, so
that wherever in the row a vector begins, its slopes lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.sums import BLOCK
from xpconv.engines.numba.kernels.vectors import choose, store_past_caches, vectors


def forward(dtype: str, lanes: int, past: bool) -> Callable[..., Any]:
    """y of a run of x, stored ``past`` the caches or not.

    Arguments: x, slopes, y, count, numbers in a row, numbers in a run.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    put = store_past_caches if past else store

    @njit
    def value(x, slope):
        return choose(x > splat(number(0)), x, x * slope)

    def kernel(args, task, slot):
        x, slopes, y, count, n, run = at(args[0]), at(args[1]), at(args[2]), args[3], args[4], args[5]
        first = task * run
        last = min(first + run, count)
        whole = first + (last - first) // lanes * lanes
        c = first % n
        for i in range(first, whole, lanes):
            put(y, i, value(load(x, i), load(slopes, c)))
            c += lanes
            if c >= n:
                c -= n
        if whole < last:
            left = last - whole
            store_some(y, whole, value(load_some(x, whole, left), load(slopes, c)), left)

    return kernel


def backward(dtype: str, lanes: int, past: bool) -> Callable[..., Any]:
    """dx of a slab of rows, stored as `forward` does, and its sums of the slopes' gradients.

    Arguments: x, dy, slopes, dx or 0, count, how many slopes there are, numbers in a row, which is several times that
    or whole vectors long, rows in a slab, parts or 0, numbers from slab to slab. Parts of a slab: a block's sums by
    their places in the row, which the last vector may reach beyond, and behind them (slopes,), the slab's.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    put = store_past_caches if past else store
    size = number.bitwidth // 8

    @njit
    def step(x, dy, slope, sums, place, adds):
        zero = splat(number(0))
        above = x > zero
        if adds:
            store(sums, place, load(sums, place) + choose(above, zero, x) * dy)
        return choose(above, dy, dy * slope)

    @njit
    def gather(block, reach, sums, n):
        for c in range(reach - 1, n - 1, -1):
            block[c - n] += block[c]
        for c in range(n):
            sums[c] += block[c]

    def kernel(args, task, slot):
        x, dy, slopes, dx, count, n, width = (
            at(args[0]),
            at(args[1]),
            at(args[2]),
            at(args[3]),
            args[4],
            args[5],
            args[6],
        )
        stores, adds, parts = args[3] != 0, args[8] != 0, args[8] + task * args[9] * size
        reach = width + lanes
        block, sums = at(parts), at(parts + reach * size)
        first, last = args[7] * task * width, min(args[7] * (task + 1) * width, count)
        if adds:
            for c in range(n):
                sums[c] = number(0)
        for start in range(first, last, BLOCK * width):
            stop = min(start + BLOCK * width, last)
            whole = start + (stop - start) // lanes * lanes
            if adds:
                for c in range(reach):
                    block[c] = number(0)
            c = 0
            for i in range(start, whole, lanes):
                slope = step(load(x, i), load(dy, i), load(slopes, c), block, c, adds)
                if stores:
                    put(dx, i, slope)
                c += lanes
                if c >= width:
                    c -= width
            if whole < stop:
                left = stop - whole
                slope = step(load_some(x, whole, left), load_some(dy, whole, left), load(slopes, c), block, c, adds)
                if stores:
                    store_some(dx, whole, slope, left)
            if adds:
                gather(block, reach, sums, n)

    return kernel
