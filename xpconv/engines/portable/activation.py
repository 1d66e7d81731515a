"""Activations: each is its value and its derivative, elementwise.

For the activations whose derivative follows from the output (relu, relu6, sigmoid, tanh, softplus) the residuals
are the output itself, in every engine, so that a fused convolution need keep nothing else; for the others, the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive

# -- values --------------------------------------------------------------------------------------------------------


def _relu(x: Array) -> Array:
    return namespace(x).maximum(x, 0.0)  # maximum hands on nan, as a comparison would not


def _relu6(x: Array) -> Array:
    xp = namespace(x)
    return xp.minimum(xp.maximum(x, 0.0), 6.0)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by exp of a number that is never positive."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, xp.ones_like(e)) / (1.0 + e)


def _tanh(x: Array) -> Array:
    return namespace(x).tanh(x)


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    xp = namespace(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _hard_swish(x: Array) -> Array:
    return x * _relu6(x + 3.0) * (1 / 6)


PLAIN: dict[str, Callable[[Array], Array]] = {
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
    "silu": _silu,
    "hard_swish": _hard_swish,
}


def activate(name: str, x: Array) -> Array:
    """The value of an activation without parameters."""
    return PLAIN[name](x)


# -- derivatives, from the output where that is enough, else from the input ------------------------------------------


def _relu_grad(y: Array, dy: Array) -> Array:
    return _where_positive(y, dy)


def _relu6_grad(y: Array, dy: Array) -> Array:
    return namespace(y).where((y > 0) & (y < 6), dy, 0.0 * dy)


def _sigmoid_grad(y: Array, dy: Array) -> Array:
    return dy * (y * (1.0 - y))


def _tanh_grad(y: Array, dy: Array) -> Array:
    return dy * (1.0 - y * y)


def _softplus_grad(y: Array, dy: Array) -> Array:
    return dy * -namespace(y).expm1(-y)  # sigmoid(x) = 1 - exp(-softplus(x))


def _silu_grad(x: Array, dy: Array) -> Array:
    s = _sigmoid(x)
    return dy * (s * (1.0 + x * (1.0 - s)))


def _hard_swish_grad(x: Array, dy: Array) -> Array:
    xp = namespace(x)
    inner = (2.0 * x + 3.0) * (1 / 6)
    slope = xp.where(x <= -3.0, xp.zeros_like(x), xp.where(x >= 3.0, xp.ones_like(x), inner))
    return dy * slope


def _where_positive(x: Array, dy: Array) -> Array:
    xp = namespace(x)
    return xp.where(x > 0, dy, xp.zeros_like(dy))


_FROM_OUTPUT = {
    "relu": _relu_grad,
    "relu6": _relu6_grad,
    "sigmoid": _sigmoid_grad,
    "tanh": _tanh_grad,
    "softplus": _softplus_grad,
}
_FROM_INPUT = {"silu": _silu_grad, "hard_swish": _hard_swish_grad}


def _plain(name: str) -> Primitive:
    value, from_output = PLAIN[name], name in _FROM_OUTPUT
    derivative = _FROM_OUTPUT[name] if from_output else _FROM_INPUT[name]

    def run(x: Array, *, needs: Needs) -> tuple[Array, Any]:
        y = value(x)
        return y, (y if from_output else x) if any(needs) else None

    def backward(residuals: Array, dy: Array, needs: Needs) -> tuple[Array, ...]:
        return (derivative(residuals, dy),)

    return Primitive(run, backward)


PRIMITIVES = {name: _plain(name) for name in PLAIN}
