"""Losses, cut into pieces and summed in blocks; a mean divides by the number of losses, at least 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xpconv.backend import Array, cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.activation import sigmoid
from xpconv.engines.portable.pieces import cut, elementwise, row_runs
from xpconv.engines.portable.sums import RunningSum, as_rows, axis_sum

# -- cross-entropy of labels -------------------------------------------------------------------------------------------


def _cross_entropy(
    logits: Array, labels: Array, *, needs: Needs, reduction: str, label_smoothing: float
) -> tuple[Array, Any]:
    """-Σ target · log softmax(logits): (..., classes), integers (...) -> (...) or ()."""
    xp = namespace(logits)
    rows, labels_of = as_rows(logits), _flat_labels(labels)
    losses, peaks, sums = (xp.empty((rows.shape[0], 1), dtype=logits.dtype, device=logits.device) for _ in range(3))
    for part in row_runs(rows, 4 * rows.shape[1]):
        at, known = (part, slice(None)), _known(labels_of[part], rows)
        peaks[at] = xp.max(rows[at], axis=1, keepdims=True)
        z = rows[at] - peaks[at]
        sums[at] = axis_sum(xp.exp(z), 1)
        # An unknown label reads class 0 here, and becomes nan below: the host never looks.
        index = xp.where(known, labels_of[part], xp.zeros_like(labels_of[part]))
        loss = xp.log(sums[at]) - (1.0 - label_smoothing) * xp.take_along_axis(z, index[:, None], axis=1)
        if label_smoothing:
            loss -= (label_smoothing / rows.shape[1]) * axis_sum(z, 1)
        losses[at] = xp.where(known[:, None], loss, _nan(loss))
    residuals = (logits, labels, peaks, sums, reduction, label_smoothing) if needs[0] else None
    if reduction == "none":
        return xp.reshape(losses, tuple(labels.shape)), residuals
    return _reduced(axis_sum(losses, 0), reduction, rows.shape[0]), residuals


def _cross_entropy_backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dlogits = (softmax(logits) - target) · dy, nan where the label was unknown."""
    logits, labels, peaks, sums, reduction, label_smoothing = residuals
    xp = namespace(logits)
    rows, labels_of = as_rows(logits), _flat_labels(labels)
    share = _share(dy, reduction, rows.shape[0])
    numbers = xp.arange(rows.shape[1], dtype=labels_of.dtype, device=labels_of.device)
    out = xp.empty(tuple(rows.shape), dtype=logits.dtype, device=logits.device)
    for part in row_runs(rows, 4 * rows.shape[1]):
        at, known = (part, slice(None)), _known(labels_of[part], rows)
        grad = xp.exp(rows[at] - peaks[at])
        grad /= sums[at]
        grad -= cast(labels_of[part][:, None] == numbers, grad.dtype) * (1.0 - label_smoothing)
        if label_smoothing:
            grad -= label_smoothing / rows.shape[1]
        shares = share if share.shape[0] != rows.shape[0] else share[part]
        grad *= xp.where(known, shares, _nan(grad))[:, None]
        out[at] = grad
    return xp.reshape(out, tuple(logits.shape)), None


def _flat_labels(labels: Array) -> Array:
    xp = namespace(labels)
    return cast(xp.reshape(labels, (math.prod(labels.shape),)), xp.int64)


def _known(labels: Array, rows: Array) -> Array:
    return (labels >= 0) & (labels < rows.shape[1])


def _nan(like: Array) -> Array:
    return namespace(like).full((), math.nan, dtype=like.dtype, device=like.device)


# -- losses of each element --------------------------------------------------------------------------------------------


def _squares(y: Array, target: Array) -> Array:
    z = y - target
    z *= z
    return z


def _binary(logits: Array, target: Array) -> Array:
    """-target · log σ(z) - (1 - target) · log(1 - σ(z)), without overflow."""
    xp = namespace(logits)
    return xp.maximum(logits, 0.0) - logits * target + xp.log1p(xp.exp(-xp.abs(logits)))


def _elementwise(value: Callable[..., Array], *slopes: Callable[..., Array]) -> Primitive:
    """The primitive of ``value(y, target)``, whose derivatives by y and by the target are ``slopes``."""

    def run(y: Array, target: Array, *, needs: Needs, reduction: str) -> tuple[Array, Any]:
        xp, n = namespace(y), math.prod(y.shape)
        residuals = (y, target, reduction) if any(needs) else None
        if reduction == "none":
            return elementwise(value, y, target), residuals
        flat, wanted = xp.reshape(y, (n,)), xp.reshape(target, (n,))
        total = RunningSum(flat, (1,))
        for box in cut(flat):
            total.add(box, axis_sum(value(flat[box], wanted[box]), 0))
        return _reduced(total.total, reduction, n), residuals

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
        y, target, reduction = residuals
        pairs = zip(slopes, needs, strict=True)
        return tuple(_chained(slope, y, target, dy, reduction) if need else None for slope, need in pairs)

    return Primitive(run, backward)


def _chained(slope: Callable[..., Array], y: Array, target: Array, dy: Array, reduction: str) -> Array:
    """slope(y, target) · dy, shared among the losses that a reduction made one."""
    if reduction == "none":
        return elementwise(lambda *parts: slope(*parts[:2]) * parts[2], y, target, dy)
    share = _share(dy, reduction, math.prod(y.shape))
    return elementwise(lambda *parts: slope(*parts) * share, y, target)


# -- reductions --------------------------------------------------------------------------------------------------------


def _reduced(total: Array, reduction: str, count: int) -> Array:
    """The sum of all losses, in an array of one element, as the op returns it: ()."""
    return namespace(total).reshape(total / float(max(count, 1)) if reduction == "mean" else total, ())


def _share(dy: Array, reduction: str, count: int) -> Array:
    """What of dy falls to each loss: (count,), or (1,) where it is the same for all."""
    flat = namespace(dy).reshape(dy, (math.prod(dy.shape),))
    return flat / float(max(count, 1)) if reduction == "mean" else flat


PRIMITIVES = {
    "softmax_cross_entropy": Primitive(_cross_entropy, _cross_entropy_backward),
    "mse": _elementwise(_squares, lambda y, target: 2.0 * (y - target), lambda y, target: 2.0 * (target - y)),
    "binary_cross_entropy_with_logits": _elementwise(
        _binary, lambda logits, target: sigmoid(logits) - target, lambda logits, target: -logits
    ),
}
