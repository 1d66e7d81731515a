"""Optimizers' updates of many parameters in place, by the formulas of `train.optim` and in their order of rounding.

Arguments of both: a table with a row for each parameter, how many there are, numbers of a task, then constants as
doubles. What the constants are to be rounded to is the dtype of the parameters, as NumPy rounds a Python number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.fields import UPDATE_FIELDS
from xpconv.engines.numba.kernels.mathematics import real, root
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.sums import ends
from xpconv.engines.numba.kernels.vectors import vectors

VALUE, GRAD, FIRST, SECOND, SIZE, TASK, STEP, ROOT = range(UPDATE_FIELDS)  # of a row of the table


@njit
def _row_of(table, count, task):
    """Where the row begins of the parameter that a task is for: the last whose first task is not beyond it."""
    row = 0
    while row + 1 < count and table[(row + 1) * UPDATE_FIELDS + TASK] <= task:
        row += 1
    return row * UPDATE_FIELDS


def _over_numbers(dtype: str, lanes: int, body: Callable[..., Any]) -> Callable[..., Any]:
    """A loop over the numbers of a task, by whole vectors and then what is left."""
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
            rate, keep, shrink = constants
            value, grad = get(p, i, left), get(g, i, left)
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
        constants = splat(number(real(args[3]))), splat(number(real(args[4]))), splat(number(real(args[5])))
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
            beta1, rest1, beta2, rest2, eps, shrink, rate, scale = constants
            value, grad = get(p, i, left), get(g, i, left)
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
            splat(number(real(args[3]))),
            splat(number(real(args[4]))),
            splat(number(real(args[5]))),
            splat(number(real(args[6]))),
            splat(number(real(args[7]))),
            splat(number(real(args[8]))),
            splat(number(real(table[row + STEP]))),
            splat(number(real(table[row + ROOT]))),
        )
        loop(table, row, first, min(first + args[2], table[row + SIZE]), constants)

    return kernel
