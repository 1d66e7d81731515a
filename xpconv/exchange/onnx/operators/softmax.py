"""Softmax, LogSoftmax and Hardmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xpconv import ops
from xpconv.backend import Array, cast, namespace
from xpconv.exchange.onnx.table import Node, Order, Step, operator
from xpconv.exchange.onnx.values import Axes


def _hardmax(x: Array, axis: int) -> Array:
    """1 at the first maximum along an axis, else 0."""
    xp = namespace(x)
    at = xp.argmax(x, axis=axis, keepdims=True)
    places = xp.arange(x.shape[axis], dtype=at.dtype, device=x.device)
    places = xp.reshape(places, tuple(-1 if i == axis else 1 for i in range(x.ndim)))
    return cast(places == at, x.dtype)


FAMILY: dict[str, Callable[..., Array]] = {
    "Softmax": ops.softmax,
    "LogSoftmax": ops.log_softmax,
    "Hardmax": _hardmax,
}


@operator(*FAMILY, order=Order.AXES)
def softmax(node: Node) -> Any:
    """Along an axis; until version 12 over all axes from that one on, as one."""
    op = FAMILY[node.op]
    axis = node.get("axis", -1 if node.version >= 13 else 1)

    def along(axes: Axes, x: Array) -> Array:
        return op(x, axes.of(axis))

    def over_rest(x: Array) -> Array:
        xp, shape = namespace(x), tuple(x.shape)
        start = axis % x.ndim if axis != x.ndim else axis
        return xp.reshape(op(xp.reshape(x, (math.prod(shape[:start]), math.prod(shape[start:]))), 1), shape)

    return along if node.version >= 13 else Step(over_rest, Order.FIRST)
