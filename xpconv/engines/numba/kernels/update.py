"""Optimizers' updates of many parameters in place, by the formulas of `train.optim` and in their order of rounding.

Arguments of all but `share`: a table with a row for each parameter, how many there are, numbers of a task. Of the
updates then: where the share of each gradient that counts is, a double, and constants as doubles. What these are to be
rounded to is the dtype of the parameters, as NumPy rounds a Python number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit, types

from xpconv.engines.numba.fields import UPDATE_FIELDS
from xpconv.engines.numba.kernels.mathematics import real, root
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.softmax import total_of
from xpconv.engines.numba.kernels.sums import BLOCK, doubles, ends
from xpconv.engines.numba.kernels.vectors import vectors

VALUE, GRAD, FIRST, SECOND, SIZE, TASK, STEP, ROOT = range(UPDATE_FIELDS)  # of a row of the table

_doubles = pointers(types.float64)


@njit
def _row_of(table, count, task):
    """Where the row begins of the parameter that a task is for: the last whose first task is not beyond it."""
    row = 0
    while row + 1 < count and table[(row + 1) * UPDATE_FIELDS + TASK] <= task:
        row += 1
    return row * UPDATE_FIELDS


def squares(dtype: str, lanes: int) -> Callable[..., Any]:
    """The sum of a task's squared gradients, in double precision. Argument: parts, one for each task."""
    get, at = doubles(dtype, lanes)[0], pointers(number_type(dtype))
    splat = vectors("float64", lanes).splat
    four, block = 4 * lanes, BLOCK * lanes

    @njit
    def squared(g, i, left):
        x = get(g, i, left)
        return x * x

    @njit
    def block_of(g, first, last):
        edge = first + (last - first) // four * four
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)  # a sum waits for its last addition
        for i in range(first, edge, four):
            a = a + squared(g, i, lanes)
            b = b + squared(g, i + lanes, lanes)
            c = c + squared(g, i + 2 * lanes, lanes)
            d = d + squared(g, i + 3 * lanes, lanes)
        for i in range(edge, last, lanes):
            a = a + squared(g, i, last - i)
        return (a + b) + (c + d)

    def kernel(args, task, slot):
        table = words(args[0])
        row = _row_of(table, args[1], task)
        first = (task - table[row + TASK]) * args[2]
        last = min(first + args[2], table[row + SIZE])
        g, total = at(table[row + GRAD]), splat(0.0)
        for start in range(first, last, block):
            total = total + block_of(g, start, min(start + block, last))
        _doubles(args[3])[task] = total_of(total)

    return kernel


def share() -> Callable[..., Any]:
    """min(1, most / (norm + beside)), nan if the norm is. Arguments: parts, how many, most, beside, where it goes."""

    def kernel(args, task, slot):
        parts, total = _doubles(args[0]), 0.0
        for first in range(0, args[1], BLOCK):
            block = 0.0
            for i in range(first, min(first + BLOCK, args[1])):
                block += parts[i]
            total += block
        part = real(args[2]) / (math.sqrt(total) + real(args[3]))
        _doubles(args[4])[0] = 1.0 if part > 1.0 else part

    return kernel


def _over_numbers(dtype: str, lanes: int, body: Callable[..., Any]) -> Callable[..., Any]:
    """A loop over the numbers of a task, by whole vectors and then what is left; ``constants`` begin with the share."""
    whole, some = body(*ends(dtype, lanes, False)), body(*ends(dtype, lanes, True))
    at = pointers(number_type(dtype))

    @njit
    def loop(table, row, first, last, constants):
        p, g = at(table[row + VALUE]), at(table[row + GRAD])
        m, v = at(table[row + FIRST]), at(table[row + SECOND])
        edge = first + (last - first) // lanes * lanes
        for i in range(first, edge, lanes):
            whole(p, g, m, v, i, lanes, constants)
        if edge < last:
            some(p, g, m, v, edge, last - edge, constants)

    return loop


def sgd(dtype: str, lanes: int, momentum: bool, nesterov: bool, decay: bool) -> Callable[..., Any]:
    """p -= rate · v with v = momentum · v + g. Constants: rate, momentum, weight decay."""
    number, splat = number_type(dtype), vectors(dtype, lanes).splat

    def body(get: Callable[..., Any], put: Callable[..., Any]) -> Callable[..., Any]:
        @njit
        def step(p, g, m, v, i, left, constants):
            part, rate, keep, shrink = constants
            value, grad = get(p, i, left), get(g, i, left) * part
            if decay:
                grad = grad + shrink * value
            if momentum:
                velocity = get(m, i, left) * keep + grad
                put(m, i, velocity, left)
                grad = grad + keep * velocity if nesterov else velocity
            put(p, i, value - rate * grad, left)

        return step

    loop = _over_numbers(dtype, lanes, body)

    def kernel(args, task, slot):
        table = words(args[0])
        row = _row_of(table, args[1], task)
        first = (task - table[row + TASK]) * args[2]
        constants = (
            splat(number(_doubles(args[3])[0])),
            splat(number(real(args[4]))),
            splat(number(real(args[5]))),
            splat(number(real(args[6]))),
        )
        loop(table, row, first, min(first + args[2], table[row + SIZE]), constants)

    return kernel


def adam(dtype: str, lanes: int, decay: bool, decoupled: bool) -> Callable[..., Any]:
    """Adam's step, or AdamW's. Constants: β1, 1 - β1, β2, 1 - β2, eps, weight decay (decoupled: times the rate).

    The rate over 1 - β1ᵗ and the root of 1 - β2ᵗ are each parameter's own, and stand in the table.
    """
    number, splat = number_type(dtype), vectors(dtype, lanes).splat
    square_root = root(dtype, lanes)

    def body(get: Callable[..., Any], put: Callable[..., Any]) -> Callable[..., Any]:
        @njit
        def step(p, g, m, v, i, left, constants):
            part, beta1, rest1, beta2, rest2, eps, shrink, rate, scale = constants
            value, grad = get(p, i, left), get(g, i, left) * part
            if decay and not decoupled:
                grad = grad + shrink * value
            mean = get(m, i, left) * beta1 + rest1 * grad
            square = get(v, i, left) * beta2 + rest2 * grad * grad
            put(m, i, mean, left)
            put(v, i, square, left)
            change = rate * mean / (square_root(square) / scale + eps)
            if decoupled:
                change = shrink * value + change
            put(p, i, value - change, left)

        return step

    loop = _over_numbers(dtype, lanes, body)

    def kernel(args, task, slot):
        table = words(args[0])
        row = _row_of(table, args[1], task)
        first = (task - table[row + TASK]) * args[2]
        constants = (
            splat(number(_doubles(args[3])[0])),
            splat(number(real(args[4]))),
            splat(number(real(args[5]))),
            splat(number(real(args[6]))),
            splat(number(real(args[7]))),
            splat(number(real(args[8]))),
            splat(number(real(args[9]))),
            splat(number(real(table[row + STEP]))),
            splat(number(real(table[row + ROOT]))),
        )
        loop(table, row, first, min(first + args[2], table[row + SIZE]), constants)

    return kernel
