"""Softmax, its logarithm and its cross-entropy."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch
from xpconv.engines.cupy.rows import launch_rows
from xpconv.engines.cupy.sums import column_sums, mean_factor


def _lines(name: str, x: Array, axis: int, *args: Any, logarithm: bool) -> None:
    """Launch a kernel along an axis: a block for each row where it is the last, else a thread for each line."""
    outer, n, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    args = (*args, *integers(outer, n, inner), logarithm)
    if inner == 1:
        launch_rows("softmax", name, x, outer, n, *args)
    elif n:
        launch("softmax", name, x, outer * inner, *args, largest=x.size)


def _pair(logarithm: bool) -> Primitive:
    def forward(x: Array, *, needs: Needs, axis: int) -> tuple[Array, Any]:
        x = dense(x)
        y = cupy.empty(x.shape, dtype=x.dtype)
        kept = cupy.empty(x.shape, dtype=computed_in(x.dtype)) if is_half(x) and any(needs) else None
        _lines("softmax", x, axis, x, y, kept, logarithm=logarithm)
        return y, (y if kept is None else kept, axis) if any(needs) else None

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
        kept, axis = residuals
        dy = dense(dy)
        dx = cupy.empty(dy.shape, dtype=dy.dtype)
        _lines("softmax_back", dy, axis, kept, dy, dx, logarithm=logarithm)
        return (dx,)

    return Primitive(forward, backward, unsupported)


def _cross_entropy(
    logits: Array, labels: Array, *, needs: Needs, reduction: str, label_smoothing: float
) -> tuple[Array, Any]:
    """-Σ target · log softmax(logits): (..., classes), integers (...) -> (...) or ()."""
    logits, labels = dense(logits), dense(cast(labels, np.dtype(np.int64)))
    rows, n, dtype = labels.size, logits.shape[-1], computed_in(logits.dtype)
    losses, peaks, sums = (cupy.empty((rows, 1), dtype=dtype) for _ in range(3))
    args = (logits, labels, losses, peaks, sums, *integers(rows, n), np.float64(label_smoothing))
    launch_rows("softmax", "cross_entropy", logits, rows, n, *args)
    residuals = (logits, labels, peaks, sums, reduction, label_smoothing) if needs[0] else None
    if reduction == "none":
        return cast(losses, logits.dtype).reshape(labels.shape), residuals
    return cast(column_sums(losses, mean_factor(reduction, rows)), logits.dtype).reshape(()), residuals


def _cross_entropy_backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dlogits = (softmax(logits) - target) · dy, nan where the label was unknown."""
    logits, labels, peaks, sums, reduction, label_smoothing = residuals
    dy, dx = dense(dy), cupy.empty(logits.shape, dtype=logits.dtype)
    sizes = (*integers(labels.size, logits.shape[-1]), np.float64(label_smoothing))
    shares = (reduction == "none", np.float64(mean_factor(reduction, labels.size)))
    args = (logits, labels, peaks, sums, dy, dx, *sizes, *shares)
    launch("softmax", "cross_entropy_back", logits, logits.size, *args)
    return dx, None


def _declines(logits: Array, labels: Array, **_: Any) -> str | None:
    return unsupported(logits)


PRIMITIVES = {
    "softmax": _pair(logarithm=False),
    "log_softmax": _pair(logarithm=True),
    "softmax_cross_entropy": Primitive(_cross_entropy, _cross_entropy_backward, _declines),
}
