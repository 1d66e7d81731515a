"""Softmax, its logarithm and its cross-entropy, row by row; and across rows, for an axis that is not the last.

Exponentials are taken of x - max x, so that none overflows. A lane's own sum has few terms; in blocks of `BLOCK` it is
added to the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from xpconv.engines.numba.kernels import mathematics
from xpconv.engines.numba.kernels.lanes import Lanes
from xpconv.engines.numba.kernels.mathematics import unary
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.sums import BLOCK, ends
from xpconv.engines.numba.kernels.vectors import below, choose, vectors


def _across(combine: Callable[[Lanes, Lanes], Lanes]) -> Callable[..., Any]:
    """The function that combines all lanes of a vector to one number, by halves."""

    @intrinsic
    def function(typing_context, vector):
        def codegen(context, builder, signature, args):
            integer, lanes = ir.IntType(32), vector.lanes
            x, width = args[0], lanes
            while width > 1:
                width //= 2
                places = [(i + width) % lanes for i in range(lanes)]
                other = builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(integer, lanes), places))
                x = combine(Lanes(builder, x), Lanes(builder, other)).value
            return builder.extract_element(x, ir.Constant(integer, 0))

        return vector.element(vector), codegen

    return function


total_of = _across(lambda a, b: a + b)
_largest = _across(lambda a, b: a.compare(">", b).choose(a, b, a))


def row_tools(dtype: str, lanes: int, keep: bool) -> tuple[Callable[..., Any], ...]:
    """``peak(x, i, n)`` and ``mass(x, i, n, peak, y)`` of a row: its largest number, and the sum of exp(x - peak).

    What is added up is kept in y on request.
    """
    number = number_type(dtype)
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    exp = unary(mathematics.exp if keep else mathematics.exp_as_a_term, dtype, lanes)

    @njit
    def peak(x, start, n):
        most = splat(number(-math.inf))
        whole = n // lanes * lanes
        for c in range(0, whole, lanes):
            v = load(x, start + c)
            most = choose(v > most, v, most)
        if whole < n:
            v = load_some(x, start + whole, n - whole)
            v = choose(below(v, n - whole), v, most)
            most = choose(v > most, v, most)
        return _largest(most)

    @njit
    def mass(x, start, n, highest, y):
        total, zero, top = splat(number(0.0)), splat(number(0.0)), splat(highest)
        for first in range(0, n, BLOCK * lanes):
            block = zero
            stop = min(first + BLOCK * lanes, n)
            whole = first + (stop - first) // lanes * lanes
            for c in range(first, whole, lanes):
                e = exp(load(x, start + c) - top)
                block = block + e
                if keep:
                    store(y, start + c, e)
            if whole < stop:
                e = exp(load_some(x, start + whole, stop - whole) - top)
                block = block + choose(below(e, stop - whole), e, zero)
                if keep:
                    store_some(y, start + whole, e, stop - whole)
            total = total + block
        return total_of(total)

    return peak, mass


def logarithm_of(dtype: str, lanes: int) -> Callable[..., Any]:
    """``log`` of one number, at least 1."""
    log, splat = unary(mathematics.log, dtype, lanes), vectors(dtype, lanes).splat

    @njit
    def one(number):
        return _first(log(splat(number)))

    return one


@intrinsic
def _first(typing_context, vector):
    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))

    return vector.element(vector), codegen


def rows(dtype: str, lanes: int, logarithm: bool) -> Callable[..., Any]:
    """y of a run of rows. Arguments: x, y, rows, columns, rows in a run."""
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, True)
    peak, mass = row_tools(dtype, lanes, not logarithm)
    log = logarithm_of(dtype, lanes)

    def kernel(args, task, slot):
        x, y, count, n, run = at(args[0]), at(args[1]), args[2], args[3], args[4]
        for r in range(task * run, min((task + 1) * run, count)):
            start = r * n
            highest = peak(x, start, n)
            total = mass(x, start, n, highest, y)
            top, share, less = splat(highest), splat(number(1.0) / total), splat(log(total))
            for c in range(0, n, lanes):
                if logarithm:
                    put(y, start + c, get(x, start + c, n - c) - top - less, n - c)
                else:
                    put(y, start + c, get(y, start + c, n - c) * share, n - c)

    return kernel


def rows_back(dtype: str, lanes: int, logarithm: bool) -> Callable[..., Any]:
    """dx of a run of rows: y (dy - Σ y dy), or dy - exp(y) Σ dy. Arguments: y, dy, dx, rows, columns, rows in a run."""
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, True)
    exp = unary(mathematics.exp, dtype, lanes)

    def kernel(args, task, slot):
        y, dy, dx, count, n, run = at(args[0]), at(args[1]), at(args[2]), args[3], args[4], args[5]
        for r in range(task * run, min((task + 1) * run, count)):
            start = r * n
            total = splat(number(0.0))
            for first in range(0, n, BLOCK * lanes):
                block = splat(number(0.0))
                for c in range(first, min(first + BLOCK * lanes, n), lanes):
                    d = get(dy, start + c, n - c)
                    block = block + (d if logarithm else d * get(y, start + c, n - c))
                total = total + block
            whole = splat(total_of(total))
            for c in range(0, n, lanes):
                v, d = get(y, start + c, n - c), get(dy, start + c, n - c)
                put(dx, start + c, d - exp(v) * whole if logarithm else v * (d - whole), n - c)

    return kernel


def planes(dtype: str, lanes: int, ragged: bool, logarithm: bool) -> Callable[..., Any]:
    """y of one plane of (planes, n, inner), normalised along n. Arguments: x, y, n, inner."""
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, ragged)
    exp, log = unary(mathematics.exp, dtype, lanes), unary(mathematics.log, dtype, lanes)

    def kernel(args, task, slot):
        x, y, n, inner = at(args[0]), at(args[1]), args[2], args[3]
        for c in range(0, inner, lanes):
            start, left = task * n * inner + c, inner - c
            top = splat(number(-math.inf))
            for i in range(start, start + n * inner, inner):
                v = get(x, i, left)
                top = choose(v > top, v, top)
            total = splat(number(0.0))
            for first in range(start, start + n * inner, BLOCK * inner):
                block = splat(number(0.0))
                for i in range(first, min(first + BLOCK * inner, start + n * inner), inner):
                    block = block + exp(get(x, i, left) - top)
                total = total + block
            share, less = splat(number(1.0)) / total, log(total)
            for i in range(start, start + n * inner, inner):
                z = get(x, i, left) - top
                put(y, i, z - less if logarithm else exp(z) * share, left)

    return kernel


def planes_back(dtype: str, lanes: int, ragged: bool, logarithm: bool) -> Callable[..., Any]:
    """dx of one plane. Arguments: y, dy, dx, n, inner."""
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, ragged)
    exp = unary(mathematics.exp, dtype, lanes)

    def kernel(args, task, slot):
        y, dy, dx, n, inner = at(args[0]), at(args[1]), at(args[2]), args[3], args[4]
        for c in range(0, inner, lanes):
            start, left = task * n * inner + c, inner - c
            total = splat(number(0.0))
            for first in range(start, start + n * inner, BLOCK * inner):
                block = splat(number(0.0))
                for i in range(first, min(first + BLOCK * inner, start + n * inner), inner):
                    d = get(dy, i, left)
                    block = block + (d if logarithm else d * get(y, i, left))
                total = total + block
            for i in range(start, start + n * inner, inner):
                v, d = get(y, i, left), get(dy, i, left)
                put(dx, i, d - exp(v) * total if logarithm else v * (d - total), left)

    return kernel
