"""Activations: one pass over memory each way.

In half precision x is kept rather than y, whose rounding a gradient would inherit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from xpconv.activations import FROM_OUTPUT
from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of

FROM_INPUT = ("silu", "hard_swish")  # the residuals of these are x

# As `enum Activation` in kernels/activation.cuh counts them.
NUMBERS: dict[str | None, int] = {
    name: number
    for number, name in enumerate(
        (None, *FROM_OUTPUT, *FROM_INPUT, "leaky_relu", "elu", "hard_sigmoid", "clip", "gelu", "gelu_tanh")
    )
}

Numbers = tuple[float, ...]


def _both(parameters: Numbers) -> tuple[Any, ...]:
    """The two numbers that a kernel takes, whether they mean anything to the activation or not."""
    return tuple(np.float64(number) for number in (*parameters, 0.0, 0.0)[:2])


def forward(name: str, x: Array, parameters: Numbers = ()) -> Array:
    x = dense(x)
    y = cupy.empty(x.shape, dtype=x.dtype)
    width, which = width_of(x.size, x, y), np.int32(NUMBERS[name])
    launch(
        "elementwise", "forward", x, x.size // width, x, y, *integers(x.size), which, *_both(parameters), width=width
    )
    return y


def gradient(name: str, kept: Array, dy: Array, parameters: Numbers = (), from_output: bool | None = None) -> Array:
    """dx from what was kept: the output of an activation of `FROM_OUTPUT`, unless told otherwise."""
    kept, dy = dense(kept), dense(dy)
    dx = cupy.empty(dy.shape, dtype=dy.dtype)
    width, which = width_of(dy.size, dy, kept, dx), np.int32(NUMBERS[name])
    by_output = name in FROM_OUTPUT if from_output is None else from_output
    args = (kept, dy, dx, *integers(dy.size), which, by_output, *_both(parameters))
    launch("elementwise", "backward", dy, dy.size // width, *args, width=width)
    return dx


def _plain(name: str) -> Primitive:
    def value(x: Array, *, needs: Needs) -> tuple[Array, Any]:
        y = forward(name, x)
        return y, (y if name in FROM_OUTPUT and not is_half(x) else x) if any(needs) else None

    def backward(residuals: Array, dy: Array, needs: Needs) -> tuple[Array, ...]:
        return (gradient(name, residuals, dy, from_output=name in FROM_OUTPUT and not is_half(dy)),)

    return Primitive(value, backward, unsupported)


def _parametric(named: Callable[..., tuple[str, Numbers]]) -> Primitive:
    """The primitive of an activation whose options ``named`` turns into its name and at most two numbers."""

    def value(x: Array, *, needs: Needs, **options: Any) -> tuple[Array, Any]:
        name, numbers = named(**options)
        return forward(name, x, numbers), (x, name, numbers) if any(needs) else None

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
        x, name, numbers = residuals
        return (gradient(name, x, dy, numbers),)

    return Primitive(value, backward, unsupported)


def _bounds(min: float | None, max: float | None) -> tuple[str, Numbers]:
    return "clip", (-math.inf if min is None else min, math.inf if max is None else max)


PRIMITIVES = {name: _plain(name) for name in (*FROM_OUTPUT, *FROM_INPUT)} | {
    "clip": _parametric(_bounds),
    "leaky_relu": _parametric(lambda slope: ("leaky_relu", (slope,))),
    "elu": _parametric(lambda alpha: ("elu", (alpha,))),
    "hard_sigmoid": _parametric(lambda alpha, beta: ("hard_sigmoid", (alpha, beta))),
    "gelu": _parametric(lambda approximate: ("gelu" if approximate == "none" else "gelu_tanh", ())),
}
