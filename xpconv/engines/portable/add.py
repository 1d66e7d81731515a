"""The sum of two arrays, with an activation."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.activation import FROM_OUTPUT, activate, derivative


def _add(x: Array, other: Array, *, needs: Needs, activation: str | None) -> tuple[Array, Any]:
    """y = activation(x + other)."""
    total = x + other
    y = total if activation is None else activate(activation, total)
    return y, (activation, y if activation in FROM_OUTPUT else total) if activation and any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """Both gradients are that of the sum."""
    dz = dy
    if residuals is not None:
        activation, kept = residuals
        dz = derivative(activation, kept, dy)
    return tuple(dz if need else None for need in needs)


PRIMITIVES = {"add": Primitive(_add, _backward)}
