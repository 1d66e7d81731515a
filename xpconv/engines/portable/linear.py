"""A linear layer over rows of any leading axes: sums in blocks of 128 terms, as the convolutions keep them."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array, conjugate, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable import activation as activations
from xpconv.engines.portable.memory import budget
from xpconv.engines.portable.pieces import row_runs
from xpconv.engines.portable.sums import as_rows, block_product, block_sum, row_product


def run(x: Array, w: Array, b: Array | None, *, needs: Needs, activation: str | None) -> tuple[Array, Any]:
    """y = activation(x @ w + b): (..., in), (in, out), (out,) -> (..., out)."""
    xp = namespace(x)
    keep_sums = any(needs) and activation in activations.FROM_INPUT
    rows = as_rows(x)
    y = xp.empty((rows.shape[0], w.shape[1]), dtype=x.dtype, device=x.device)
    sums = xp.empty_like(y) if keep_sums else None
    for part in row_runs(rows, 2 * y.shape[1]):
        z = row_product(rows[part, :], w)
        if b is not None:
            z += b  # after the sum, so that it is rounded once
        if sums is not None:
            sums[part, :] = z
        y[part, :] = z if activation is None else activations.activate(activation, z)
    y = xp.reshape(y, (*x.shape[:-1], w.shape[1]))
    kept = None
    if activation is not None and any(needs):
        kept = y if sums is None else xp.reshape(sums, tuple(y.shape))
    return y, (x if needs[1] else None, w if needs[0] else None, activation, kept)


def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx = dz @ w.H, dw = x.H @ dz, db = the sum of dz over its rows."""
    x, w, activation, kept = residuals
    xp = namespace(dy)
    dz = dy if activation is None else activations.derivative(activation, kept, dy)
    rows = as_rows(dz)
    dx = dw = None
    if needs[0]:
        back = conjugate(w).T
        dx = xp.empty((rows.shape[0], back.shape[1]), dtype=dy.dtype, device=dy.device)
        for part in row_runs(rows, 2 * dx.shape[1]):
            dx[part, :] = row_product(rows[part, :], back)
        dx = xp.reshape(dx, (*dy.shape[:-1], back.shape[1]))
    if needs[1]:
        dw = block_product(conjugate(as_rows(x)), rows, budget(dy))
    return dx, dw, block_sum(rows) if needs[2] else None


PRIMITIVES = {"linear": Primitive(run, backward)}
