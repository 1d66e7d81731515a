"""Reductions over some axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.backend import Array, cast, namespace
from xpconv.exchange.onnx.operators.shape import axes_of
from xpconv.exchange.onnx.table import Node, Order, operator
from xpconv.exchange.onnx.values import Axes
from xpconv.kinds import dtype_kind, is_inexact

Reduction = Callable[..., Array]  # (namespace, x, axis=, keepdims=) -> array of the dtype of x


def _total(xp: Any, x: Array, **over: Any) -> Array:
    return xp.sum(x, dtype=x.dtype, **over)


def _extreme(name: str) -> Reduction:
    def run(xp: Any, x: Array, **over: Any) -> Array:
        if dtype_kind(x.dtype) == "b":
            return (xp.any if name == "max" else xp.all)(x, **over)
        if any(x.shape[axis] == 0 for axis in over["axis"]):
            shape = [1 if i in over["axis"] else n for i, n in enumerate(x.shape)]
            full = xp.full(tuple(shape), _least(xp, x, name), dtype=x.dtype, device=x.device)
            return full if over["keepdims"] else xp.squeeze(full, axis=over["axis"])
        return getattr(xp, name)(x, **over)

    return run


def _least(xp: Any, x: Array, name: str) -> Any:
    """What the extreme of nothing is."""
    sign = -1 if name == "max" else 1
    if is_inexact(x):
        return sign * float("inf")
    return xp.iinfo(x.dtype).min if name == "max" else xp.iinfo(x.dtype).max


def _log_sum_exp(xp: Any, x: Array, **over: Any) -> Array:
    """log Σ exp(x), of x less its largest element so that nothing overflows."""
    top = _extreme("max")(xp, x, axis=over["axis"], keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    summed = xp.log(_total(xp, xp.exp(x - top), **over))
    return summed + (top if over["keepdims"] else xp.squeeze(top, axis=over["axis"]))


def _real(reduction: Reduction) -> Reduction:
    """A reduction to real numbers: that of integers is done in float64, and cut to their dtype."""

    def run(xp: Any, x: Array, **over: Any) -> Array:
        if is_inexact(x):
            return reduction(xp, x, **over)
        return cast(reduction(xp, cast(x, xp.float64), **over), x.dtype)

    return run


REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _total,
    "ReduceMean": _real(lambda xp, x, **over: xp.mean(x, **over)),
    "ReduceMax": _extreme("max"),
    "ReduceMin": _extreme("min"),
    "ReduceProd": lambda xp, x, **over: xp.prod(x, dtype=x.dtype, **over),
    "ReduceL1": lambda xp, x, **over: _total(xp, xp.abs(x), **over),
    "ReduceL2": _real(lambda xp, x, **over: xp.sqrt(_total(xp, x * x, **over))),
    "ReduceSumSquare": lambda xp, x, **over: _total(xp, x * x, **over),
    "ReduceLogSum": _real(lambda xp, x, **over: xp.log(_total(xp, x, **over))),
    "ReduceLogSumExp": _real(_log_sum_exp),
}


@operator(*REDUCTIONS, order=Order.AXES, host=(1,))
def reduce(node: Node) -> Any:
    """Over the axes that are an input, or in older versions an attribute; by default over all."""
    reduction = REDUCTIONS[node.op]
    keep, idle = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))
    node.get("axes")

    def run(axes: Axes, x: Array, over: np.ndarray | None = None) -> Array:
        given = axes_of(node, over)
        xp, wanted = namespace(x), {axis % max(x.ndim, 1) for axis in given or range(0 if idle else x.ndim)}
        if axes.last and not keep and len(wanted | {0, 1}) < x.ndim:  # spatial axes are left: they come after C
            x, axes = xp.permute_dims(x, tuple(axes.of(i) for i in range(x.ndim))), Axes(x.ndim, False)
        return reduction(xp, x, axis=tuple(sorted(axes.of(axis) for axis in wanted)), keepdims=keep)

    return run
