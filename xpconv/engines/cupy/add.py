"""The sum of two arrays with an activation, in one pass over memory each way; half precision is rounded once."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.activations import FROM_OUTPUT
from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.activation import NUMBERS, gradient
from xpconv.engines.cupy.arrays import computed_in, dense, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of


def _add(x: Array, other: Array, *, needs: Needs, activation: str | None) -> tuple[Array, Any]:
    """y = activation(x + other); kept: y where the gradient follows from it, else the sum as it was computed."""
    x, other = dense(x), dense(other)
    y = cupy.empty(x.shape, dtype=x.dtype)
    differentiable = activation is not None and any(needs)
    from_output = activation == "relu" or (activation in FROM_OUTPUT and not is_half(x))
    sums = cupy.empty(x.shape, dtype=computed_in(x.dtype)) if differentiable and not from_output else None
    width = width_of(x.size, x, other, y)
    args = (x, other, y, sums, *integers(x.size), np.int32(NUMBERS[activation]))
    launch("elementwise", "add", x, x.size // width, *args, width=width)
    return y, (activation, y if sums is None else sums, from_output) if differentiable else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """Both gradients are that of the sum."""
    dz = dy
    if residuals is not None:
        activation, kept, from_output = residuals
        dz = gradient(activation, kept, dy) if from_output else _from_sums(activation, kept, dense(dy))
    return tuple(dz if need else None for need in needs)


def _from_sums(activation: str, sums: Array, dy: Array) -> Array:
    dz = cupy.empty(dy.shape, dtype=dy.dtype)
    width = width_of(dy.size, dy, dz)
    args = (sums, dy, dz, *integers(dy.size), np.int32(NUMBERS[activation]))
    launch("elementwise", "back_from_sums", dy, dy.size // width, *args, width=width)
    return dz


PRIMITIVES = {"add": Primitive(_add, _backward, unsupported)}
