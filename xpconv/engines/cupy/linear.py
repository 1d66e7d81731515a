"""Linear layers: convolutions of one cell over a line of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy import activation as activations
from xpconv.engines.cupy import columns
from xpconv.engines.cupy.arrays import dense, dense_or_none, is_half, unsupported
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.finish import Epilogue, Output
from xpconv.engines.cupy.sums import as_rows, bias_grad
from xpconv.window import Window


def _sizes(rows: int, inputs: int, outputs: int) -> Sizes:
    return Sizes(Window((rows,), (1,), (1,), (1,), ((0, 0),), (rows,)), 1, inputs, outputs)


def run(x: Array, w: Array, b: Array | None, *, needs: Needs, activation: str | None) -> tuple[Array, Any]:
    """y = activation(x @ w + b): (..., in), (in, out), (out,) -> (..., out)."""
    if activation is not None and is_half(x) and any(needs):
        # What goes from step to step is not rounded: a tanh that half precision makes 1 would have no slope left.
        y, residuals = run(*(None if a is None else cast(a, np.dtype(np.float32)) for a in (x, w, b)),
                           needs=needs, activation=activation)  # fmt: skip
        return cast(y, x.dtype), residuals
    keep_sums = any(needs) and activation in activations.FROM_INPUT
    rows, w = as_rows(x), dense(w)
    output = Output.like(x, (rows.shape[0], w.shape[1]), Epilogue(dense_or_none(b), None, activation, keep_sums))
    if output.y.size:
        columns.fprop(rows, w, _sizes(rows.shape[0], *w.shape), output)
    y = output.y.reshape(*x.shape[:-1], w.shape[1])
    kept = None if activation is None or not any(needs) else y if output.sums is None else output.sums.reshape(y.shape)
    return y, (rows if needs[1] else None, w if needs[0] else None, activation, kept)


def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx = dz @ w.T, dw = x.T @ dz, db = the sum of dz over its rows."""
    x, w, activation, kept = residuals
    dz = dense(dy) if activation is None else activations.gradient(activation, kept, cast(dy, kept.dtype))
    rows, dx, dw = as_rows(dz), None, None
    if needs[0]:
        output = Output.like(rows, (rows.shape[0], w.shape[0]), Epilogue())
        if output.y.size:
            columns.dgrad(rows, w, _sizes(rows.shape[0], *w.shape), output)
        dx = output.y.reshape(*dy.shape[:-1], w.shape[0])
    if needs[1]:
        dw = columns.wgrad(x, rows, _sizes(rows.shape[0], x.shape[-1], rows.shape[-1]))
    grads = dx, dw, bias_grad(rows) if needs[2] else None
    return tuple(None if g is None else cast(g, dy.dtype) for g in grads)


def _declines(x: Array, w: Array, b: Array | None, **_: Any) -> str | None:
    return unsupported(x, w, b) or (None if w.size else "has no products to add up")


PRIMITIVES = {"linear": Primitive(run, backward, _declines)}
