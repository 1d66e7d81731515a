"""Batch normalisation, and what samples share with it: x is read twice forward, the second time for y, twice back."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.activation import FROM_OUTPUT, NUMBERS, gradient
from xpconv.engines.cupy.arrays import computed_in, dense, dense_or_none, is_half, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.sums import BLOCKS, SLAB_WIDTH, Slabs, launch_settling

_STRUCT = np.dtype([(name, "i8") for name in ("batches", "rows", "channels", "each", "slab", "slabs")])
STATISTICS = 4  # rows of a table: mean, drift, var, rstd


class Layout(NamedTuple):
    """x as (batches, rows, groups, each), averaged over rows and the ``each`` channels of a group."""

    batches: int
    rows: int
    channels: int
    each: int

    def summed(self, width: int) -> Slabs:
        """Slabs whose sums are added up."""
        return Slabs.of(self.rows, self.channels, width, blocks=max(BLOCKS // max(self.batches, 1), 1))

    def walked(self, width: int) -> Slabs:
        """Slabs that have nothing in common but their channels' numbers: many, so that none is long waited for."""
        return Slabs.of(self.rows, self.channels, width, blocks=sys.maxsize)

    @property
    def groups(self) -> int:
        return self.channels // self.each if self.each else 0

    def struct(self, slabs: Slabs | None = None) -> np.ndarray[Any, Any]:
        """As kernels take it, with its slabs, or one of all rows."""
        return np.array([(*self, slabs.size, slabs.slabs) if slabs else (*self, self.rows, 1)], dtype=_STRUCT)

    def merged(self, parts: Array) -> np.ndarray[Any, Any]:
        """For kernels that add up what slabs have, (batches, slabs, ...), and need not know their size."""
        return np.array([(*self, 0, parts.shape[1])], dtype=_STRUCT)


def empty_table(x: Array, layout: Layout) -> Array:
    """Room for what x̂ is made of, for each batch and channel: (batches, 4, channels)."""
    return cupy.empty((layout.batches, STATISTICS, layout.channels), dtype=computed_in(x.dtype))


def table_of(x: Array, layout: Layout, eps: float) -> Array:
    """What x̂ is made of."""
    table = empty_table(x, layout)
    numbers = np.float64(eps)
    if not x.size:
        args = (None, None, table, *integers(layout.batches, layout.channels), numbers)
        launch("norm", "given", x, layout.batches * layout.channels, *args, largest=table.size)
        return table
    slabs = layout.summed(width_of(layout.channels, x, most=SLAB_WIDTH))
    struct = layout.struct(slabs)
    parts = cupy.empty((layout.batches, slabs.slabs, 3, layout.channels), dtype=table.dtype)
    slabs.launch("norm", "moments", x, x, parts, struct, batches=layout.batches, largest=parts.size)
    _settle("norm", "merge", x, layout, layout.groups, parts, table, numbers, struct)
    return table


def _settle(
    module: str, name: str, x: Array, layout: Layout, columns: int, parts: Array, *args: Any, batches: int = 0
) -> None:
    """Launch what adds up the slabs of each batch, or (``batches`` = 1) of all."""
    largest = max(parts.size, layout.batches * STATISTICS * layout.channels)  # of the table that some of them take
    launch_settling(module, name, x, columns, parts, *args, batches=batches or layout.batches, largest=largest)


def _given(mean: Array, var: Array, x: Array, eps: float) -> Array:
    """The table of statistics that were given for the one batch."""
    channels = x.shape[-1]
    table = cupy.empty((1, STATISTICS, channels), dtype=computed_in(x.dtype))
    args = (dense(mean), dense(var), table, *integers(1, channels), np.float64(eps))
    launch("norm", "given", x, channels, *args, largest=table.size)
    return table


def normalised(
    x: Array,
    table: Array,
    parameters: tuple[Array | None, Array | None],
    layout: Layout,
    activation: str | None,
    residual: Array | None = None,
    keep_sums: bool = False,
) -> tuple[Array, Array | None]:
    """y = activation(x̂ · gamma + beta + residual), and what the activation was applied to where that is kept."""
    y, sums = cupy.empty(x.shape, dtype=x.dtype), cupy.empty(x.shape, dtype=x.dtype) if keep_sums else None
    if x.size:
        slabs = layout.walked(width_of(x.shape[-1], x, y, *parameters, residual, most=SLAB_WIDTH))
        args = (x, table, *parameters, residual, sums, y, np.int32(NUMBERS[activation]), layout.struct(slabs))
        slabs.launch("norm", "normalise", x, *args, batches=layout.batches, largest=table.size)
    return y, sums


class Kept(NamedTuple):
    """Residuals."""

    x: Array
    gamma: Array | None
    beta: Array | None
    table: Array
    layout: Layout
    given: bool  # the statistics were, and nothing of dx flows through them
    activation: str | None


def gradients(kept: Kept, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """The gradients of x, gamma, beta, and of a mean and variance that were given."""
    dy = dense(dy)
    return _by_parts(kept, dy, _slab_sums(kept, dy) if _sums_wanted(kept, needs) else None, needs)


def _sums_wanted(kept: Kept, needs: Needs) -> bool:
    return bool(kept.x.size and (not kept.given or any(needs[1:])))


def _by_parts(kept: Kept, dy: Array, parts: Array | None, needs: Needs) -> tuple[Array | None, ...]:
    others = parameter_gradients(kept, parts, needs[1:]) if any(needs[1:]) else (None,) * (len(needs) - 1)
    return _input_gradient(kept, dy, parts) if needs[0] else None, *others


def _slab_sums(kept: Kept, dy: Array) -> Array:
    """The sums of dz and of dz · x̂ that each slab has: (batches, slabs, 2, channels)."""
    x, gamma, beta, table, layout, _, activation = kept
    slabs = layout.summed(width_of(layout.channels, x, dy, gamma, beta, most=SLAB_WIDTH))
    parts = cupy.empty((layout.batches, slabs.slabs, 2, layout.channels), dtype=table.dtype)
    args = (x, dy, table, gamma, beta, parts, np.int32(NUMBERS[activation]), layout.struct(slabs))
    slabs.launch("norm_back", "gradient_sums", x, *args, batches=layout.batches, largest=table.size)
    return parts


def _joined_slab_sums(kept: Kept, dy: Array, joined: tuple[str, Array]) -> tuple[Array, Array]:
    """The same behind the sum with a residual, and dz: ``joined`` is its activation and what was kept of that."""
    x, layout, (activation, start) = kept.x, kept.layout, joined
    dz = cupy.empty(dy.shape, dtype=dy.dtype)
    slabs = layout.summed(width_of(layout.channels, x, dy, start, dz, most=SLAB_WIDTH))
    parts = cupy.empty((1, slabs.slabs, 2, layout.channels), dtype=kept.table.dtype)
    which = np.int32(NUMBERS[activation]), activation in FROM_OUTPUT
    args = (x, dy, kept.table, start, dz, parts, *which, layout.struct(slabs))
    slabs.launch("norm_back", "joined_gradient_sums", x, *args, largest=kept.table.size)
    return parts, dz


def parameter_gradients(kept: Kept, parts: Array | None, needs: Needs) -> tuple[Array | None, ...]:
    """Of gamma, beta, mean and var, as many as there are."""
    x, layout = kept.x, kept.layout
    wanted = [_room(x) if need else None for need in needs]
    if parts is None:  # nothing was summed
        return tuple(None if one is None else cupy.zeros(one.shape, dtype=one.dtype) for one in wanted)
    args = (kept.table, kept.gamma, *(*wanted, None, None)[:4], layout.merged(parts))
    _settle("norm_back", "parameter_gradients", x, layout, layout.channels, parts, *args, batches=1)
    return tuple(wanted)


def _input_gradient(kept: Kept, dy: Array, parts: Array | None) -> Array:
    x, gamma, beta, table, layout, given, activation = kept
    dx, sums = cupy.empty(x.shape, dtype=x.dtype), None
    if not x.size:
        return dx
    if parts is not None and not given:
        sums = cupy.empty((layout.batches, 2, layout.channels), dtype=table.dtype)
        _settle("norm_back", "merge_gradients", x, layout, layout.groups, parts, gamma, sums, layout.merged(parts))
    slabs = layout.walked(width_of(layout.channels, x, dy, dx, gamma, beta, most=SLAB_WIDTH))
    args = (x, dy, table, sums, gamma, beta, dx, np.int32(NUMBERS[activation]), layout.struct(slabs))
    slabs.launch("norm_back", "gradient", x, *args, batches=layout.batches, largest=table.size)
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
    layout = Layout(1, math.prod(x.shape[:-1]), x.shape[-1], 1)
    table = table_of(x, layout, eps) if mean is None else _given(mean, var, x, eps)
    dense_residual = dense_or_none(residual)
    from_output = activation is None or activation in FROM_OUTPUT
    keep_sums = residual is not None and not from_output and any(needs)
    y, sums = normalised(x, table, (gamma, beta), layout, activation, dense_residual, keep_sums)
    joined = (activation, y if sums is None else sums) if residual is not None and activation is not None else None
    inner = activation if residual is None else None
    kept = (Kept(x, gamma, beta, table, layout, mean is not None, inner), joined) if any(needs) else None
    if not return_stats:
        return y, kept
    seen_mean, seen_var = _room(x), _room(x)
    launch("norm", "statistics", x, x.shape[-1], table, seen_mean, seen_var, *integers(x.shape[-1]), largest=table.size)
    return (y, seen_mean, seen_var), kept


def _batch_gradients(kept: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """The gradients of `_gradients`, and of a residual: what the activation of the sum leaves of dy."""
    norm, joined = kept
    if joined is None:
        return *gradients(norm, dy, needs[:5]), dy if needs[5] else None
    dy = dense(dy)
    if _sums_wanted(norm, needs[:5]):
        parts, dz = _joined_slab_sums(norm, dy, joined)
    else:
        parts, dz = None, gradient(joined[0], joined[1], dy)
    return *_by_parts(norm, dz, parts, needs[:5]), dz if needs[5] else None


def _declines_batch(
    x: Array, gamma: Any, beta: Any, mean: Any, var: Any, residual: Any, *, activation: str | None, **_: Any
) -> str | None:
    if residual is not None and is_half(x) and activation not in (None, "relu"):
        return f"keeps nothing in half precision that the gradient of {activation} behind a sum could start from"
    return unsupported(x, gamma, beta, mean, var, residual)


PRIMITIVES = {"batch_norm": Primitive(_batch_norm, _batch_gradients, _declines_batch)}
