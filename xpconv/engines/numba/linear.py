"""Linear layers on NumPy arrays: convolutions of one cell, on the same kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba import activation as activations
from xpconv.engines.numba.arrays import dense, empty, kept, place, unsupported
from xpconv.engines.numba.conv import input_weights
from xpconv.engines.numba.direct import Finish, Weights, direct
from xpconv.engines.numba.outer import outer
from xpconv.engines.numba.plan import line_pass
from xpconv.engines.numba.sums import bias_grad


def run(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, *, needs: Needs, activation: str | None
) -> tuple[np.ndarray, Any]:
    """y = activation(x @ w + b): (..., in), (in, out), (out,) -> (..., out)."""
    x, source, w = dense(x), w, dense(w)
    rows = _as_line(x)
    y = empty((*rows.shape[:-1], w.shape[1]), x.dtype)
    sums = empty(y.shape, y.dtype) if any(needs) and activation in activations.FROM_INPUT else None
    finish = Finish(None if b is None else dense(b), None, activation, sums)
    direct(
        rows,
        Weights(place(w), w.shape[1] * w.itemsize, *w.shape, 1, source, "output"),
        y,
        rows.shape[1:2],
        line_pass(rows.shape[1]),
        finish,
    )
    before = None if activation is None or not any(needs) else y if sums is None else sums
    y = y.reshape(*x.shape[:-1], w.shape[1])
    return y, (x if needs[1] else None, source if needs[0] else None, activation, before)


def backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dx = dz @ w.T, dw = x.T @ dz, db = the sum of dz over its rows."""
    x, w, activation, before = residuals
    dz = dense(dy)
    if activation is not None:
        gradient = activations.PRIMITIVES[activation].backward
        assert gradient is not None
        (dz,) = gradient(before.reshape(dy.shape), dy, (True,))
    rows = _as_line(dz)
    dx = dw = None
    if needs[0]:
        dx = empty((*rows.shape[:-1], w.shape[0]), dy.dtype)
        packed = kept(w, ("input", 1), lambda: input_weights(dense(w), 1))
        weights = Weights(place(packed), w.shape[0] * w.itemsize, w.shape[1], w.shape[0], 1, w, "input")
        direct(rows, weights, dx, rows.shape[1:2], line_pass(rows.shape[1]), Finish())
        dx = dx.reshape(*dy.shape[:-1], w.shape[0])
    if needs[1]:
        dw = empty((x.shape[-1], dy.shape[-1]), dy.dtype)
        outer(_as_line(x), rows, dw, rows.shape[1:2], line_pass(rows.shape[1]), 1)
    return dx, dw, bias_grad(dz) if needs[2] else None


def _as_line(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (1, rows, C): an image of one axis."""
    return x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1])


PRIMITIVES = {"linear": Primitive(run, backward, lambda x, w, b, **_: unsupported(x, w))}
