"""Arithmetic, elementwise with broadcasting."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Callable
from typing import Any

from xpconv.backend import Array, cast, namespace
from xpconv.exchange.onnx.table import Node, Order, Step, operator
from xpconv.kinds import is_inexact

# ONNX's name of a function of one array, and the array API's.
UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "negative",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sqrt": "sqrt",
}


@operator(*UNARY, order=Order.ANY)
def unary(node: Node) -> Any:
    """A function of the array API."""
    name = UNARY[node.op]
    return lambda x: getattr(namespace(x), name)(x)


@operator("Reciprocal", order=Order.ANY)
def reciprocal(node: Node) -> Any:
    """``1 / x``."""
    return lambda x: 1 / x


def aligned(node: Node, run: Callable[[Array, Array], Array]) -> Step:
    """A function of two arrays; until version 6 the second may be laid along the first from an ``axis`` on."""
    if node.version >= 7:
        return Step(run)
    axis = node.get("axis")
    broadcast = node.get("broadcast", 0)
    if not broadcast or axis is None:
        return Step(run)

    def laid(a: Array, b: Array) -> Array:
        trailing = a.ndim - axis % a.ndim - b.ndim
        return run(a, namespace(b).reshape(b, (*b.shape, *(1,) * trailing)))

    return Step(laid, Order.FIRST)


def _divide(a: Array, b: Array) -> Array:
    """The quotient; of integers, cut towards 0."""
    if is_inexact(a):
        return a / b
    xp = namespace(a)
    quotient = a // b
    away = (quotient * b != a) & ((a < 0) != (b < 0))
    return quotient + cast(away, quotient.dtype) if xp.isdtype(a.dtype, "signed integer") else quotient


def _power(base: Array, exponent: Array) -> Array:
    """A power of the base's dtype, whatever the exponent's is."""
    xp = namespace(base)
    if not is_inexact(base) and is_inexact(exponent):
        return cast(xp.pow(cast(base, xp.float64), cast(exponent, xp.float64)), base.dtype)
    return xp.pow(base, cast(exponent, base.dtype))


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": python.add,
    "Sub": python.sub,
    "Mul": python.mul,
    "Div": _divide,
    "Pow": _power,
}


@operator(*BINARY, order=Order.ANY)
def binary(node: Node) -> Any:
    """A function of two arrays."""
    return aligned(node, BINARY[node.op])


@operator("Mod", order=Order.ANY)
def mod(node: Node) -> Any:
    """The remainder with the divisor's sign or, with fmod=1, the dividend's."""
    if not node.get("fmod", 0):
        return lambda a, b: namespace(a).remainder(a, b)

    def fmod(a: Array, b: Array) -> Array:
        xp = namespace(a)
        rest = xp.remainder(xp.abs(a), xp.abs(b))
        return xp.where(a < 0, -rest, rest)

    return fmod


def _folded(pair: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda *arrays: functools.reduce(pair, arrays)


SEVERAL: dict[str, Callable[..., Array]] = {
    "Sum": _folded(python.add),
    "Max": _folded(lambda a, b: namespace(a).maximum(a, b)),
    "Min": _folded(lambda a, b: namespace(a).minimum(a, b)),
    "Mean": lambda *arrays: functools.reduce(python.add, arrays) / len(arrays),
}


@operator(*SEVERAL, order=Order.ANY)
def several(node: Node) -> Any:
    """A function of any number of arrays."""
    return SEVERAL[node.op]
