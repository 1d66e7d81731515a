"""Layer normalisation over the last axes: a team of threads for each row."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, dense_or_none, unsupported
from xpconv.engines.cupy.compiled import integers, width_of
from xpconv.engines.cupy.rows import RowSlabs, launch_rows
from xpconv.engines.cupy.sums import SLAB_WIDTH, Slabs, settle


def _layer_norm(
    x: Array, gamma: Array | None, beta: Array | None, *, needs: Needs, axes: tuple[int, ...], eps: float
) -> tuple[Array, Any]:
    """y = x̂ · gamma + beta, by the mean and variance over the last axes."""
    x, gamma, beta = dense(x), dense_or_none(gamma), dense_or_none(beta)
    n = math.prod(x.shape[axis] for axis in axes)
    rows, y = x.size // n if n else 0, cupy.empty(x.shape, dtype=x.dtype)
    table = cupy.empty((rows, 3), dtype=computed_in(x.dtype)) if any(needs) else None
    args = (x, gamma, beta, y, table, *integers(rows, n), np.float64(eps))
    launch_rows("rownorm", "normalise_rows", x, rows, n, *args, width=width_of(n, x, gamma, beta, y))
    shape = next((v.shape for v in (gamma, beta) if v is not None), ())
    return y, _Kept(x, gamma, shape, table, rows, n) if any(needs) else None


class _Kept(NamedTuple):
    """Residuals."""

    x: Array
    gamma: Array | None
    shape: tuple[int, ...]  # of gamma and beta
    table: Array
    rows: int
    n: int


def _backward(kept: _Kept, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂)) with g = dy · gamma; dgamma = Σ dy x̂, dbeta = Σ dy."""
    x, gamma, shape, table, rows, n = kept
    dy, wanted = dense(dy), any(needs[1:])
    dx = cupy.empty(x.shape, dtype=x.dtype) if needs[0] else None
    parts = _joined(kept, dy, dx) if wanted and dx is not None else None
    if dx is not None and parts is None:
        args, width = (x, dy, table, gamma, dx, *integers(rows, n)), width_of(n, x, dy, gamma, dx)
        launch_rows("rownorm", "gradient_rows", x, rows, n, *args, width=width)
    if not wanted:
        return dx, None, None
    both = cupy.empty((2, n), dtype=x.dtype)
    if n:
        settle(_slab_sums(kept, dy) if parts is None else parts, both)
    return dx, *(both[i].reshape(shape) if need else None for i, need in enumerate(needs[1:]))


def _joined(kept: _Kept, dy: Array, dx: Array) -> Array | None:
    """Write dx, and give the sums of dy · x̂ and of dy that each slab has; `None` for rows too long for it, or empty."""
    x, gamma, _, table, rows, n = kept
    slabs = RowSlabs.of(rows, n, width_of(n, x, dy, gamma, dx)) if n else None
    if slabs is None:
        return None
    parts = cupy.empty((slabs.slabs, 2, n), dtype=table.dtype)
    slabs.launch("rownorm", "gradient_slabs", x, x, dy, table, gamma, dx, parts, *integers(rows, n, slabs.size))
    return parts


def _slab_sums(kept: _Kept, dy: Array) -> Array:
    """The same sums in a pass of their own."""
    x, _, _, table, rows, n = kept
    slabs = Slabs.of(rows, n, width_of(n, x, dy, most=SLAB_WIDTH))
    parts = cupy.empty((slabs.slabs, 2, n), dtype=table.dtype)
    slabs.launch("rownorm", "parameter_sums", x, x, dy, table, parts, *integers(rows, n, slabs.size))
    return parts


def _declines(x: Array, *arrays: Any, axes: tuple[int, ...], **_: Any) -> str | None:
    if axes != tuple(range(x.ndim - len(axes), x.ndim)):
        return "normalises over the last axes, not those with others behind them"
    return unsupported(x, *arrays)


PRIMITIVES = {"layer_norm": Primitive(_layer_norm, _backward, _declines)}
