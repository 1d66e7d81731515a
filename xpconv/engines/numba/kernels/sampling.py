"""Padding and resizing by tables: copies of cells, and weighted sums of them.

There are always three spatial axes. A plan (`numba/sampling.py`) has six words for each: how many cells it is read
from; how many runs of places there are, of one place each but on the last axis; how long each is, and all are; where
its terms begin, and all end; and the terms' cells and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from xpconv.engines.numba.fields import CACHE_LINE, LINES_BYTES, TERM_BLOCK
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.pool import helper
from xpconv.engines.numba.kernels.vectors import multiply_add, store_past_caches, vectors

_bytes = pointers(types.uint8)


@helper
def _axis(plan, axis):
    """Cells, runs, how long each is, where its terms begin, their cells; and the address of their weights."""
    at = 6 * axis
    return plan[at], plan[at + 1], words(plan[at + 2]), words(plan[at + 3]), words(plan[at + 4]), plan[at + 5]


def _in_steps(size: int, shorter: Callable[..., Any]) -> Callable[..., Any]:
    """``copy(source, to, count)``, of bytes: so many at a time, from a place that they divide on; fewer, by another."""
    load, store = vectors("uint8", size)[:2]

    def copy(source, to, count):
        if count < size:
            shorter(source, to, count)
        else:
            store(_bytes(to), 0, load(_bytes(source), 0))
            first = size - to % size
            for i in range(first, count - size + 1, size):
                store(_bytes(to), i, load(_bytes(source), i))
            if (count - first) % size != 0:
                store(_bytes(to), count - size, load(_bytes(source), count - size))

    return helper(copy)


@helper
def _one_by_one(source, to, count):
    for i in range(count):
        _bytes(to)[i] = _bytes(source)[i]


_copy = _in_steps(CACHE_LINE, _in_steps(16, _in_steps(4, _one_by_one)))
_load, _store = vectors("uint8", CACHE_LINE)[:2]
_SMALL = 16  # bytes, of pixels that are copied with what lies behind them
_load_small, _store_small = vectors("uint8", _SMALL)[:2]


@helper
def _copy_past(source, to, count):
    """Whole lines, past the caches."""
    for i in range(0, count, CACHE_LINE):
        store_past_caches(_bytes(to), i, _load(_bytes(source), i))


@helper
def _fill(pattern, to, count):
    """Repeats the bytes of a cache line."""
    if count < CACHE_LINE:
        _copy(pattern, to, count)
    else:
        line = _load(_bytes(pattern), 0)
        for i in range(0, count - CACHE_LINE + 1, CACHE_LINE):
            _store(_bytes(to), i, line)
        _store(_bytes(to), count - CACHE_LINE, line)  # numbers divide a line, so that they lie in it as before


def copies() -> Callable[..., Any]:
    """Lines of y, (N, *out, C), of any dtype: each place a copy of its one cell, or filled.

    Arguments: x, y, plan, a cache line of the value, bytes of a pixel, lines of all images, lines of a task, whether y
    is stored past the caches.
    """

    def kernel(args, task, slot):
        x, y, plan, pattern = args[0], args[1], words(args[2]), args[3]
        pixel, lines, each, past = args[4], args[5], args[6], args[7]
        n0, m0, _, begin0, cells0, _ = _axis(plan, 0)
        n1, m1, _, begin1, cells1, _ = _axis(plan, 1)
        n2, runs, length2, begin2, cells2, _ = _axis(plan, 2)
        row, before = length2[runs] * pixel, 0
        for line in range(task * each, min(lines, (task + 1) * each)):
            image, i, j = line // (m0 * m1), line // m1 % m0, line % m1
            to = y + line * row
            if begin0[i] == begin0[i + 1] or begin1[j] == begin1[j + 1]:
                _fill(pattern, to, row)
                continue
            source = x + ((image * n0 + cells0[begin0[i]]) * n1 + cells1[begin1[j]]) * n2 * pixel
            if source == before and past == 0:  # the line above is the same, and in a cache
                _copy(to - row, to, row)
                continue
            before, last_from, last_to = source, source + n2 * pixel - _SMALL, to + row - _SMALL
            for run in range(runs):
                count, term = length2[run] * pixel, begin2[run]
                cell = source + cells2[term] * pixel if term < begin2[run + 1] else 0
                if cell == 0:
                    _fill(pattern, to, count)
                elif past != 0:
                    _copy_past(cell, to, count)
                elif count <= _SMALL and cell <= last_from and to <= last_to:  # what is behind it is written next
                    _store_small(_bytes(to), 0, _load_small(_bytes(cell), 0))
                else:
                    _copy(cell, to, count)
                to += count

    return kernel


def sums(dtype: str, wide: int, narrow: int) -> Callable[..., Any]:
    """Lines of y, (N, *out, C): each place the weighted sum of its cells.

    Lines of x are added up first, then the cells along their sum. Vectors are wide while there are numbers for them,
    then narrow; fewer channels than a narrow one are read and written with what lies behind them, which is written
    next. Arguments: x, y, plan, channels, lines of all images, lines of a task, whether y is stored past the caches,
    whether all runs are one place of two terms, scratch, bytes of scratch.
    """
    number, zero = number_type(dtype), number_type(dtype)(0)
    numbers = pointers(number)
    add, add_pairs = _along(dtype, wide, narrow), _pairs_along(dtype, narrow)

    def kernel(args, task, slot):
        x, y, plan, channels = numbers(args[0]), numbers(args[1]), words(args[2]), args[3]
        lines, each, past, pairs, scratch = args[4], args[5], args[6], args[7], args[8] + slot * args[9]
        nothing, one = types.int64(0), types.int64(1)  # as constants they would have `add` compiled twice
        # The lines of x that are added up are a table of their own, with one run of all their numbers.
        own, places = words(scratch), words(scratch + CACHE_LINE)
        shares, mixed = numbers(scratch + CACHE_LINE + 8 * TERM_BLOCK), numbers(scratch + LINES_BYTES)
        n0, m0, _, begin0, cells0, weights0 = _axis(plan, 0)
        n1, m1, _, begin1, cells1, weights1 = _axis(plan, 1)
        n2, runs, length2, begin2, cells2, weights2 = _axis(plan, 2)
        by0, by1, by2 = numbers(weights0), numbers(weights1), numbers(weights2)
        for line in range(task * each, min(lines, (task + 1) * each)):
            image, i, j = line // (m0 * m1), line // m1 % m0, line % m1
            terms = 0
            for e in range(begin0[i], begin0[i + 1]):
                for f in range(begin1[j], begin1[j + 1]):
                    places[terms] = ((image * n0 + cells0[e]) * n1 + cells1[f]) * n2 * channels
                    shares[terms] = by0[e] * by1[f]
                    terms += 1
            to = line * length2[runs] * channels
            if terms == 0:
                for i in range(length2[runs] * channels):
                    y[to + i] = zero
                continue
            source, start = x, places[0]
            if terms > 1 or shares[0] != number(1) or channels < narrow:
                own[0] = own[1] = n2 * channels
                own[2], own[3] = 0, terms
                add(x, nothing, one, own, words(scratch + 16), places, shares, one, mixed, nothing, nothing)
                source, start = mixed, 0
            if pairs != 0 and channels < wide:
                add_pairs(source, start, runs, cells2, by2, channels, y, to, past)
            else:
                add(source, start, runs, length2, begin2, cells2, by2, channels, y, to, past)

    return kernel


def _along(dtype: str, wide: int, narrow: int) -> Callable[..., Any]:
    """``add``: the cells of a line for each of its places, in runs of places that read cells in a row."""
    zero = number_type(dtype)(0)
    of_wide, of_narrow = vectors(dtype, wide), vectors(dtype, narrow)
    store, store_some = of_narrow.store, of_narrow.store_some
    put_wide, put = _put(dtype, wide), _put(dtype, narrow)
    add_wide, add_narrow = _adder(of_wide.load, of_wide.splat), _adder(of_narrow.load, of_narrow.splat)
    add_some = _adder(of_narrow.load_some, of_narrow.splat)

    @helper
    def add(x, at, runs, length, begin, cells, weights, step, y, to, past):
        """y[to + i] = the sum over terms of weight · x[at + cell · step + i], for so many i."""
        place, e, last = to, begin[0], to + length[runs] * step - narrow
        for run in range(runs):
            count, b, e = length[run] * step, e, begin[run + 1]
            if b == e:
                for i in range(count):
                    y[place + i] = zero
            elif count >= narrow:
                whole, steps = count - count % wide, count - count % narrow
                for i in range(0, whole, wide):
                    put_wide(y, place + i, add_wide(x, at + i, cells, weights, b, e, step), past)
                for i in range(whole, steps, narrow):
                    put(y, place + i, add_narrow(x, at + i, cells, weights, b, e, step), past)
                if steps < count:
                    i = count - narrow
                    store(y, place + i, add_narrow(x, at + i, cells, weights, b, e, step))
            elif place <= last:
                store(y, place, add_narrow(x, at, cells, weights, b, e, step))
            else:
                store_some(y, place, add_some(x, at, cells, weights, b, e, step, count), count)
            place += count

    return add


def _pairs_along(dtype: str, narrow: int) -> Callable[..., Any]:
    """``add_pairs``, as `_along`, where all runs are one place of two terms."""
    load, store, load_some, store_some, splat = vectors(dtype, narrow)
    put = _put(dtype, narrow)

    @helper
    def add_pairs(x, at, places, cells, weights, step, y, to, past):
        whole, last = step - step % narrow, to + places * step - narrow
        for place in range(places):
            a, b = at + cells[2 * place] * step, at + cells[2 * place + 1] * step
            v, w = splat(weights[2 * place]), splat(weights[2 * place + 1])
            for i in range(0, whole, narrow):
                put(y, to + i, multiply_add(w, load(x, b + i), v * load(x, a + i)), past)
            if whole < step:
                i = max(step - narrow, 0)
                if to + i <= last:
                    store(y, to + i, multiply_add(w, load(x, b + i), v * load(x, a + i)))
                else:
                    store_some(y, to, multiply_add(w, load_some(x, b, step), v * load_some(x, a, step)), step)
            to += step

    return add_pairs


def _put(dtype: str, lanes: int) -> Callable[..., Any]:
    """``put(y, at, vector, past)``: a store, past the caches where that is wanted and vectors are whole lines."""
    store, whole_lines = vectors(dtype, lanes).store, lanes * number_type(dtype).bitwidth % (8 * CACHE_LINE) == 0

    @helper
    def put(y, at, vector, past):
        if whole_lines and past != 0:
            store_past_caches(y, at, vector)
        else:
            store(y, at, vector)

    return put


def _adder(load: Callable[..., Any], splat: Callable[..., Any]) -> Callable[..., Any]:
    """The weighted sum of vectors, or of as many of their numbers as are named last, the terms' cells a step apart."""

    def add(x, at, cells, weights, begin, end, step, *count):
        total = splat(weights[begin]) * load(x, at + cells[begin] * step, *count)
        for t in range(begin + 1, end):
            total = multiply_add(splat(weights[t]), load(x, at + cells[t] * step, *count), total)
        return total

    return helper(add)
