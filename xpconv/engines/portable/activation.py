"""Activations: each is its value and its derivative, elementwise.

For the activations whose derivative follows from the output (relu, relu6, sigmoid, tanh, softplus) the residuals
are the output itself, in every engine, so that a fused convolution need keep nothing else; for the others, the input.
Cases are told apart by arithmetic (a term that is 0 in the other case) where that is exact: it is many times faster
than `where` on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xpconv.backend import Array, cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.memory import masked
from xpconv.engines.portable.pieces import cut, elementwise
from xpconv.engines.portable.sums import RunningSum, axis_sum

# -- values --------------------------------------------------------------------------------------------------------


def _relu(x: Array) -> Array:
    return namespace(x).maximum(x, 0.0)  # maximum hands on nan, as a comparison would not


def _relu6(x: Array) -> Array:
    xp = namespace(x)
    return xp.minimum(xp.maximum(x, 0.0), 6.0)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by exp of a number that is never positive."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    y = xp.maximum(e, cast(x >= 0.0, x.dtype))  # 1 for x >= 0, else exp(x)
    y /= 1.0 + e
    return y


def sigmoid_slope(x: Array) -> Array:
    """σ(x) (1 - σ(x)), without the cancellation of 1 - σ(x)."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return e / ((1.0 + e) * (1.0 + e))


def _tanh(x: Array) -> Array:
    return namespace(x).tanh(x)


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    xp = namespace(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def _silu(x: Array) -> Array:
    return x * sigmoid(x)


def _hard_swish(x: Array) -> Array:
    return x * (_relu6(x + 3.0) * (1 / 6))  # at most x, where x * 6 may overflow


PLAIN: dict[str, Callable[[Array], Array]] = {
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": sigmoid,
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
    return masked(y > 0.0, dy)


def _relu6_grad(y: Array, dy: Array) -> Array:
    return masked((y > 0.0) & (y < 6.0), dy)


def _sigmoid_grad(y: Array, dy: Array) -> Array:
    return dy * (y * (1.0 - y))


def _tanh_grad(y: Array, dy: Array) -> Array:
    return dy * (1.0 - y * y)


def _softplus_grad(y: Array, dy: Array) -> Array:
    return dy * -namespace(y).expm1(-y)  # sigmoid(x) = 1 - exp(-softplus(x))


def _silu_grad(x: Array, dy: Array) -> Array:
    return dy * (sigmoid(x) + x * sigmoid_slope(x))


def _hard_swish_grad(x: Array, dy: Array) -> Array:
    inside = masked(namespace(x).abs(x) < 3.0, (x + 1.5) * (1 / 3))
    return dy * (inside + cast(x >= 3.0, x.dtype))


FROM_OUTPUT: dict[str, Callable[[Array, Array], Array]] = {
    "relu": _relu_grad,
    "relu6": _relu6_grad,
    "sigmoid": _sigmoid_grad,
    "tanh": _tanh_grad,
    "softplus": _softplus_grad,
}
FROM_INPUT: dict[str, Callable[[Array, Array], Array]] = {"silu": _silu_grad, "hard_swish": _hard_swish_grad}


def derivative(name: str, kept: Array, dy: Array) -> Array:
    """dx of an activation without parameters, from its output if in `FROM_OUTPUT`, else from its input."""
    return elementwise(FROM_OUTPUT.get(name) or FROM_INPUT[name], kept, dy)


def _plain(name: str) -> Primitive:
    def run(x: Array, *, needs: Needs) -> tuple[Array, Any]:
        y = elementwise(PLAIN[name], x)
        return y, (y if name in FROM_OUTPUT else x) if any(needs) else None

    def backward(residuals: Array, dy: Array, needs: Needs) -> tuple[Array, ...]:
        return (derivative(name, residuals, dy),)

    return Primitive(run, backward)


# -- activations with parameters ---------------------------------------------------------------------------------------


def parametric(value: Callable[..., Array], grad: Callable[..., Array]) -> Primitive:
    """The primitive of ``value(x, **options)`` and ``grad(x, dy, **options)``; x is kept."""

    def run(x: Array, *, needs: Needs, **options: Any) -> tuple[Array, Any]:
        return elementwise(lambda part: value(part, **options), x), (x, options) if any(needs) else None

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
        x, options = residuals
        return (elementwise(lambda part, dy_part: grad(part, dy_part, **options), x, dy),)

    return Primitive(run, backward)


def _clip(x: Array, *, min: float | None, max: float | None) -> Array:
    xp = namespace(x)
    y = xp.asarray(x, copy=True) if min is None else xp.maximum(x, min)
    return y if max is None else xp.minimum(y, max)


def _clip_grad(x: Array, dy: Array, *, min: float | None, max: float | None) -> Array:
    mask = x == x if min is None else x >= min
    return masked(mask if max is None else mask & (x <= max), dy)


def _leaky(x: Array, slope: float | Array) -> Array:
    xp = namespace(x)
    return xp.maximum(x, 0.0) + slope * xp.minimum(x, 0.0)


def _leaky_grad(x: Array, dy: Array, slope: float | Array) -> Array:
    above = cast(x > 0.0, x.dtype)
    return dy * (above + slope * (1.0 - above))


def _elu(x: Array, *, alpha: float) -> Array:
    xp = namespace(x)
    return xp.maximum(x, 0.0) + alpha * xp.expm1(xp.minimum(x, 0.0))


def _elu_grad(x: Array, dy: Array, *, alpha: float) -> Array:
    xp = namespace(x)
    above = cast(x > 0.0, x.dtype)
    return dy * (above + alpha * (1.0 - above) * xp.exp(xp.minimum(x, 0.0)))


def _hard_sigmoid(x: Array, *, alpha: float, beta: float) -> Array:
    xp = namespace(x)
    return xp.minimum(xp.maximum(alpha * x + beta, 0.0), 1.0)


def _hard_sigmoid_grad(x: Array, dy: Array, *, alpha: float, beta: float) -> Array:
    y = alpha * x + beta
    return masked((y > 0.0) & (y < 1.0), alpha * dy)


def _prelu(x: Array, slope: Array, *, needs: Needs) -> tuple[Array, Any]:
    """(..., C), (C,) or a single slope -> (..., C)."""
    xp = namespace(x)
    rows, slopes = _beside_slopes(x, slope)
    y = xp.empty(tuple(rows.shape), dtype=x.dtype, device=x.device)
    for box in cut(rows):
        y[box] = _leaky(rows[box], slopes[box[1]])
    return xp.reshape(y, tuple(x.shape)), (x, slope) if any(needs) else None


def _prelu_grad(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx as of leaky_relu; the slope's is the sum of min(x, 0) · dy."""
    x, slope = residuals
    xp = namespace(x)
    rows, slopes = _beside_slopes(x, slope)
    dys = xp.reshape(dy, tuple(rows.shape))
    dx = xp.empty(tuple(rows.shape), dtype=x.dtype, device=x.device) if needs[0] else None
    sums = RunningSum(rows, (1, rows.shape[1]))
    for box in cut(rows):
        if dx is not None:
            dx[box] = _leaky_grad(rows[box], dys[box], slopes[box[1]])
        if needs[1]:
            sums.add(box, axis_sum(xp.minimum(rows[box], 0.0) * dys[box], 0))
    return (
        None if dx is None else xp.reshape(dx, tuple(x.shape)),
        xp.reshape(sums.total, tuple(slope.shape)) if needs[1] else None,
    )


def _beside_slopes(x: Array, slope: Array) -> tuple[Array, Array]:
    """x as (rows, slopes) and the slopes as (slopes,)."""
    xp, slopes = namespace(x), math.prod(slope.shape)
    return xp.reshape(x, (math.prod(x.shape) // slopes, slopes)), xp.reshape(slope, (slopes,))


PRIMITIVES = {name: _plain(name) for name in PLAIN} | {
    "clip": parametric(_clip, _clip_grad),
    "leaky_relu": parametric(_leaky, _leaky_grad),
    "elu": parametric(_elu, _elu_grad),
    "hard_sigmoid": parametric(_hard_sigmoid, _hard_sigmoid_grad),
    "prelu": Primitive(_prelu, _prelu_grad),
}
