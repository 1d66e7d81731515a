"""Max unpooling without a scatter, which the array API lacks: sort the indices, and let each target look up its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.memory import budget
from xpconv.engines.portable.pieces import boxes

Sizes = tuple[int, ...]


def max_unpool(x: Array, indices: Array, *, needs: Needs, output_size: Sizes) -> tuple[Array, Any]:
    """y[n, indices[n, i, c], c] = x[n, i, c], else 0: (N, *size, C) -> (N, *output_size, C)."""
    xp = namespace(x)
    y = xp.empty((x.shape[0], *output_size, x.shape[-1]), dtype=x.dtype, device=x.device)
    zero = xp.zeros((), dtype=x.dtype, device=x.device)
    for planes in _planes(x, output_size):
        part = x[planes]
        shape = (part.shape[0], *output_size, part.shape[-1])
        order, targets = _sorted_targets(indices[planes], output_size)
        wanted = xp.arange(math.prod(shape), dtype=targets.dtype, device=x.device)
        # The last of equal targets, which is the last in row-major order: the sort is stable.
        found = xp.maximum(xp.searchsorted(targets, wanted, side="right") - 1, 0)
        values = xp.take(xp.reshape(part, (-1,)), xp.take(order, found, axis=0), axis=0)
        y[planes] = xp.reshape(xp.where(xp.take(targets, found, axis=0) == wanted, values, zero), shape)
    return y, (indices, output_size) if any(needs) else None


def max_unpool_grad(residuals: tuple[Array, Sizes], dy: Array, needs: Needs) -> tuple[Array, None]:
    """dx = dy at the target, 0 for a cell that a later one has overwritten: (N, *output_size, C) -> (N, *size, C)."""
    xp = namespace(dy)
    indices, output_size = residuals
    dx = xp.empty(indices.shape, dtype=dy.dtype, device=dy.device)
    zero = xp.zeros((), dtype=dy.dtype, device=dy.device)
    for planes in _planes(indices, output_size):
        part = xp.reshape(dy[planes], (-1,))
        order, targets = _sorted_targets(indices[planes], output_size)
        end = xp.full((1,), part.shape[0], dtype=targets.dtype, device=dy.device)
        last = targets != xp.concat([targets[1:], end], axis=0)  # what has no place is its own successor here
        values = xp.where(last, xp.take(part, xp.minimum(targets, part.shape[0] - 1), axis=0), zero)
        dx[planes] = xp.reshape(xp.take(values, xp.argsort(order), axis=0), indices[planes].shape)
    return dx, None


def _sorted_targets(indices: Array, output_size: Sizes) -> tuple[Array, Array]:
    """The order that sorts the cells by where they go, and where: flat in (n, *output_size, c), its size if nowhere."""
    xp = namespace(indices)
    images, channels, cells = indices.shape[0], indices.shape[-1], math.prod(output_size)
    like = {"dtype": xp.int64, "device": indices.device}
    image = xp.reshape(xp.arange(images, **like), (images, *(1,) * (indices.ndim - 1)))
    targets = (image * cells + indices) * channels + xp.arange(channels, **like)
    nowhere = xp.full((), images * cells * channels, **like)
    targets = xp.reshape(xp.where((indices >= 0) & (indices < cells), targets, nowhere), (-1,))
    order = xp.argsort(targets, stable=True)
    return order, xp.take(targets, order, axis=0)


def _planes(x: Array, output_size: Sizes) -> Iterator[tuple[Any, ...]]:
    """Index of some images and channels at a time, whose few arrays of 64-bit integers fit the budget."""
    scratch = 8 * 5 * (math.prod(x.shape[1:-1]) + math.prod(output_size))
    for images, channels in boxes((x.shape[0], x.shape[-1]), budget(x) // scratch):
        yield (images, ..., channels)


PRIMITIVES = {"max_unpool": Primitive(max_unpool, max_unpool_grad)}
