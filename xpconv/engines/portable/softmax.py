"""Softmax and its logarithm along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.memory import budget, itemsize
from xpconv.engines.portable.pieces import boxes
from xpconv.engines.portable.sums import axis_sum


def _softmax(x: Array) -> Array:
    """exp(x - max x) over its sum along axis 1."""
    xp = namespace(x)
    y = xp.exp(x - xp.max(x, axis=1, keepdims=True))
    y /= axis_sum(y, 1)
    return y


def _softmax_grad(y: Array, dy: Array) -> Array:
    dx = dy - axis_sum(dy * y, 1)
    dx *= y
    return dx


def _log_softmax(x: Array) -> Array:
    xp = namespace(x)
    y = x - xp.max(x, axis=1, keepdims=True)
    y -= xp.log(axis_sum(xp.exp(y), 1))
    return y


def _log_softmax_grad(y: Array, dy: Array) -> Array:
    return dy - namespace(y).exp(y) * axis_sum(dy, 1)


def _along(function: Callable[..., Array], axis: int, *arrays: Array) -> Array:
    """A function along axis 1 of (outer, n, inner), applied along any axis, piece by piece."""
    xp, shape = namespace(arrays[0]), tuple(arrays[0].shape)
    flat = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    arrays = tuple(xp.reshape(a, flat) for a in arrays)
    y = xp.empty(flat, dtype=arrays[0].dtype, device=arrays[0].device)
    for at in _lines(y) if 0 not in flat else ():
        y[at] = function(*(a[at] for a in arrays))
    return xp.reshape(y, shape)


def _lines(y: Array) -> Iterator[tuple[slice, ...]]:
    """Pieces of (outer, n, inner) that hold whole lines of n."""
    for outer, inner in boxes((y.shape[0], y.shape[2]), budget(y) // (4 * itemsize(y) * y.shape[1])):
        yield outer, slice(None), inner


def _pair(value: Callable[[Array], Array], grad: Callable[[Array, Array], Array]) -> Primitive:
    """The primitive of a function whose derivative follows from its output."""

    def run(x: Array, *, needs: Needs, axis: int) -> tuple[Array, Any]:
        y = _along(value, axis, x)
        return y, (y, axis) if any(needs) else None

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
        y, axis = residuals
        return (_along(grad, axis, y, dy),)

    return Primitive(run, backward)


PRIMITIVES = {"softmax": _pair(_softmax, _softmax_grad), "log_softmax": _pair(_log_softmax, _log_softmax_grad)}
