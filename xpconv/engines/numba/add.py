"""The sum of two arrays on NumPy arrays, compiled: an activation in the same pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import FROM_INPUT, RUN, forward, gradient
from xpconv.engines.numba.arrays import dense, empty, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name


def _add(x: np.ndarray, other: np.ndarray, *, needs: Needs, activation: str | None) -> tuple[np.ndarray, Any]:
    """y = activation(x + other); the sums of an activation that keeps its input take a pass of their own."""
    if activation in FROM_INPUT:
        total = _sum(x, other, None)
        return forward(activation, total), (activation, total) if any(needs) else None
    y = _sum(x, other, activation)
    return y, (activation, y) if activation and any(needs) else None


def _sum(x: np.ndarray, other: np.ndarray, activation: str | None) -> np.ndarray:
    x, other = dense(x), dense(other)
    y, dtype = empty(x.shape, x.dtype), dtype_name(x.dtype)
    kernel = address("activation", "added", activation, dtype, machine().lanes(dtype))
    sizes = x.size, RUN
    run(kernel, -(-x.size // RUN), place(x), place(other), place(y), *sizes, threads=threads_for(x.size))
    return y


def _backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """Both gradients are that of the sum."""
    dz = dy
    if residuals is not None:
        activation, kept = residuals
        dz = gradient(activation, kept, dy)
    return tuple(dz if need else None for need in needs)


PRIMITIVES = {"add": Primitive(_add, _backward, lambda x, other, **_: unsupported(x, other))}
