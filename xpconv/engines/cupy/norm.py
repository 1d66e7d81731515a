"""Batch, instance and group normalisation: x is read twice forward (the second time for y) and twice back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.activation import FROM_OUTPUT, NUMBERS, forward, gradient
from xpconv.engines.cupy.arrays import computed_in, dense, dense_or_none, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.sums import Slabs

_STRUCT = np.dtype([(name, "i8") for name in ("batches", "rows", "channels", "each", "slab", "slabs")])
_STATISTICS = 4  # rows of a table: mean, drift, var, rstd


class _Layout(NamedTuple):
    """x as (batches, rows, groups, each), averaged over rows and the ``each`` channels of a group."""

    batches: int
    rows: int
    channels: int
    each: int

    @property
    def slabs(self) -> Slabs:
        return Slabs.of(self.rows, self.channels)

    @property
    def groups(self) -> int:
        return self.channels // self.each if self.each else 0

    def struct(self) -> np.ndarray[Any, Any]:
        return np.array([(*self, self.slabs.size, self.slabs.slabs)], dtype=_STRUCT)


def _table(x: Array, layout: _Layout, eps: float) -> Array:
    """What x̂ is made of, for each batch and channel: (batches, 4, channels)."""
    table = cupy.empty((layout.batches, _STATISTICS, layout.channels), dtype=computed_in(x.dtype))
    numbers = np.float64(eps)
    if not x.size:
        args = (None, None, table, *integers(layout.batches, layout.channels), numbers)
        launch("norm", "given", x, layout.batches * layout.channels, *args)
        return table
    parts = cupy.empty((layout.batches, layout.slabs.slabs, layout.channels, 3), dtype=table.dtype)
    layout.slabs.launch("norm", "moments", x, x, parts, layout.struct(), last=layout.batches)
    items = layout.batches * layout.groups
    launch("norm", "merge", x, items, parts, table, numbers, layout.struct(), largest=parts.size)
    return table


def _given(mean: Array, var: Array, x: Array, eps: float) -> Array:
    """The table of statistics that were given for the one batch."""
    channels = x.shape[-1]
    table = cupy.empty((1, _STATISTICS, channels), dtype=computed_in(x.dtype))
    args = (dense(mean), dense(var), table, *integers(1, channels), np.float64(eps))
    launch("norm", "given", x, channels, *args)
    return table


def _normalised(
    x: Array, table: Array, gamma: Array | None, beta: Array | None, layout: _Layout, activation: str | None
) -> Array:
    y = cupy.empty(x.shape, dtype=x.dtype)
    width, which = width_of(x.shape[-1], x, y), np.int32(NUMBERS[activation])
    launch("norm", "normalise", x, x.size // width, x, table, gamma, beta, y, which, layout.struct(), width=width)
    return y


class _Kept(NamedTuple):
    """Residuals."""

    x: Array
    gamma: Array | None
    beta: Array | None
    table: Array
    layout: _Layout
    given: bool  # the statistics were, and nothing of dx flows through them
    activation: str | None


def _gradients(kept: _Kept, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """The gradients of x, gamma, beta, and of a mean and variance that were given."""
    dy, parts = dense(dy), None
    if kept.x.size and (not kept.given or any(needs[1:])):
        parts = _slab_sums(kept, dy)
    others = _parameter_gradients(kept, parts, needs[1:]) if any(needs[1:]) else (None,) * (len(needs) - 1)
    return _input_gradient(kept, dy, parts) if needs[0] else None, *others


def _slab_sums(kept: _Kept, dy: Array) -> Array:
    """The sums of dz and of dz · x̂ that each slab has: (batches, slabs, 2, channels)."""
    x, gamma, beta, table, layout, _, activation = kept
    slabs = layout.slabs
    parts = cupy.empty((layout.batches, slabs.slabs, 2, layout.channels), dtype=table.dtype)
    args = (x, dy, table, gamma, beta, parts, np.int32(NUMBERS[activation]), layout.struct())
    slabs.launch("norm", "gradient_sums", x, *args, last=layout.batches)
    return parts


def _parameter_gradients(kept: _Kept, parts: Array | None, needs: Needs) -> tuple[Array | None, ...]:
    """Of gamma, beta, mean and var, as many as there are."""
    x, layout = kept.x, kept.layout
    wanted = [_room(x) if need else None for need in needs]
    if parts is None:  # nothing was summed
        return tuple(None if one is None else cupy.zeros(one.shape, dtype=one.dtype) for one in wanted)
    args = (parts, kept.table, kept.gamma, *(*wanted, None, None)[:4], layout.struct())
    launch("norm", "parameter_gradients", x, layout.channels, *args, largest=parts.size)
    return tuple(wanted)


def _input_gradient(kept: _Kept, dy: Array, parts: Array | None) -> Array:
    x, gamma, beta, table, layout, given, activation = kept
    struct, sums = layout.struct(), None
    if parts is not None and not given:
        sums = cupy.empty((layout.batches, 2, layout.channels), dtype=table.dtype)
        items = layout.batches * layout.groups
        launch("norm", "merge_gradients", x, items, parts, gamma, sums, struct, largest=parts.size)
    dx = cupy.empty(x.shape, dtype=x.dtype)
    width = width_of(x.shape[-1], x, dy, dx)
    args = (x, dy, table, sums, gamma, beta, dx, np.int32(NUMBERS[activation]), struct)
    launch("norm", "gradient", x, x.size // width, *args, width=width)
    return dx


def _room(x: Array) -> Array:
    return cupy.empty(x.shape[-1], dtype=x.dtype)


def _batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array | None,
    var: Array | None,
    residual: Array | None,
    *,
    needs: Needs,
    eps: float,
    return_stats: bool,
    activation: str | None,
) -> tuple[Any, Any]:
    """y = activation(x̂ · gamma + beta + residual): (..., C), (C,), ... -> (..., C), or (y, mean, var)."""
    x, gamma, beta = dense(x), dense_or_none(gamma), dense_or_none(beta)
    layout = _Layout(1, math.prod(x.shape[:-1]), x.shape[-1], 1)
    table = _table(x, layout, eps) if mean is None else _given(mean, var, x, eps)
    inner = activation if residual is None else None
    y, joined = _normalised(x, table, gamma, beta, layout, inner), None
    if residual is not None:
        y, joined = _joined(y, residual, activation)
    kept = (_Kept(x, gamma, beta, table, layout, mean is not None, inner), joined) if any(needs) else None
    if not return_stats:
        return y, kept
    seen_mean, seen_var = _room(x), _room(x)
    launch("norm", "statistics", x, x.shape[-1], table, seen_mean, seen_var, *integers(x.shape[-1]))
    return (y, seen_mean, seen_var), kept


def _joined(z: Array, residual: Array, activation: str | None) -> tuple[Array, tuple[str, Array] | None]:
    """activation(z + residual), written into z as far as it goes, and what its gradient needs."""
    z += residual
    if activation is None:
        return z, None
    y = forward(activation, z)
    return y, (activation, y if activation in FROM_OUTPUT else z)


def _batch_gradients(kept: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """The gradients of `_gradients`, and of a residual: what the activation of the sum leaves of dy."""
    norm, joined = kept
    dz = dy if joined is None else gradient(joined[0], joined[1], dy)
    return *_gradients(norm, dz, needs[:5]), dz if needs[5] else None


def _of_samples(x: Array, each: int) -> _Layout:
    """Each sample by itself."""
    return _Layout(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1], each)


def _by_sample(
    x: Array, gamma: Array | None, beta: Array | None, needs: Needs, eps: float, each: int
) -> tuple[Array, Any]:
    x, gamma, beta = dense(x), dense_or_none(gamma), dense_or_none(beta)
    layout = _of_samples(x, each)
    table = _table(x, layout, eps)
    y = _normalised(x, table, gamma, beta, layout, None)
    return y, _Kept(x, gamma, beta, table, layout, False, None) if any(needs) else None


def _instance_norm(x: Array, gamma: Any, beta: Any, *, needs: Needs, eps: float) -> tuple[Array, Any]:
    return _by_sample(x, gamma, beta, needs, eps, 1)


def _group_norm(x: Array, gamma: Any, beta: Any, *, needs: Needs, num_groups: int, eps: float) -> tuple[Array, Any]:
    return _by_sample(x, gamma, beta, needs, eps, x.shape[-1] // num_groups)


def _declines_batch(x: Array, gamma: Any, beta: Any, mean: Any, var: Any, residual: Any, **_: Any) -> str | None:
    if residual is not None and is_half(x):
        return "adds no residual to a norm in half precision, which would be rounded before"
    return unsupported(x, gamma, beta, mean, var, residual)


def _declines_samples(x: Array, *arrays: Any, **_: Any) -> str | None:
    if x.shape[0] > 65535:  # the grid's third axis
        return "normalises at most 65535 samples at a time"
    return unsupported(x, *arrays)


PRIMITIVES = {
    "batch_norm": Primitive(_batch_norm, _batch_gradients, _declines_batch),
    "instance_norm": Primitive(_instance_norm, _gradients, _declines_samples),
    "group_norm": Primitive(_group_norm, _gradients, _declines_samples),
}
