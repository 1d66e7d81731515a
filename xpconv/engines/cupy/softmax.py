"""Softmax, its logarithm and its cross-entropy."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.rows import launch_rows
from xpconv.engines.cupy.sums import column_sums, mean_factor


def _lines(names: tuple[str, str], x: Array, axis: int, *arrays: Array | None, logarithm: bool) -> None:
    """Launch a kernel along an axis: one of teams for rows where it is the last, else one of a thread for each line."""
    outer, n, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    if inner == 1:
        width = width_of(n, x, *arrays)
        launch_rows("softmax", names[0], x, outer, n, *arrays, *integers(outer, n), logarithm, width=width)
    elif n:
        args = (*arrays, *integers(outer, n, inner), logarithm)
        launch("softmax", names[1], x, outer * inner, *args, largest=x.size)


def _pair(logarithm: bool) -> Primitive:
    def forward(x: Array, *, needs: Needs, axis: int) -> tuple[Array, Any]:
        x = dense(x)
        y = cupy.empty(x.shape, dtype=x.dtype)
        kept = cupy.empty(x.shape, dtype=computed_in(x.dtype)) if is_half(x) and any(needs) else None
        _lines(("softmax", "softmax_lines"), x, axis, x, y, kept, logarithm=logarithm)
        return y, (y if kept is None else kept, axis) if any(needs) else None

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
        kept, axis = residuals
        dy = dense(dy)
        dx = cupy.empty(dy.shape, dtype=dy.dtype)
        _lines(("softmax_back", "softmax_back_lines"), dy, axis, kept, dy, dx, logarithm=logarithm)
        return (dx,)

    return Primitive(forward, backward, unsupported)


def _cross_entropy(
    logits: Array, labels: Array, *, needs: Needs, reduction: str, label_smoothing: float
) -> tuple[Array, Any]:
    """-Σ target · log softmax(logits): (..., classes), integers (...) -> (...) or ()."""
    logits, labels = dense(logits), dense(cast(labels, np.dtype(np.int64)))
    rows, n, dtype = labels.size, logits.shape[-1], computed_in(logits.dtype)
    losses, peaks, sums = (cupy.empty((rows, 1), dtype=dtype) for _ in range(3))
    args = (logits, labels, losses, peaks, sums, *integers(rows, n), *_target(label_smoothing, n))
    launch_rows("softmax", "cross_entropy", logits, rows, n, *args, width=width_of(n, logits))
    residuals = (logits, labels, peaks, sums, reduction, label_smoothing) if needs[0] else None
    if reduction == "none":
        return cast(losses, logits.dtype).reshape(labels.shape), residuals
    return cast(column_sums(losses, mean_factor(reduction, rows)), logits.dtype).reshape(()), residuals


def _cross_entropy_backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dlogits = (softmax(logits) - target) · dy, nan where the label was unknown."""
    logits, labels, peaks, sums, reduction, label_smoothing = residuals
    dy, dx = dense(dy), cupy.empty(logits.shape, dtype=logits.dtype)
    rows, n = labels.size, logits.shape[-1]
    numbers = (*integers(rows, n), *_target(label_smoothing, n))
    shares = (reduction == "none", np.float64(mean_factor(reduction, rows)))
    args = (logits, labels, peaks, sums, dy, dx, *numbers, *shares)
    launch_rows("softmax", "cross_entropy_back", logits, rows, n, *args, width=width_of(n, logits, dx))
    return dx, None


def _target(label_smoothing: float, n: int) -> tuple[Any, Any]:
    """What the target has of the label, and what of every class."""
    return np.float64(1 - label_smoothing), np.float64(label_smoothing / max(n, 1))


def _declines(logits: Array, labels: Array, **_: Any) -> str | None:
    return unsupported(logits)


PRIMITIVES = {
    "softmax": _pair(logarithm=False),
    "log_softmax": _pair(logarithm=True),
    "softmax_cross_entropy": Primitive(_cross_entropy, _cross_entropy_backward, _declines),
}
