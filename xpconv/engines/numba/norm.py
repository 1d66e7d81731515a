"""Batch normalisation on NumPy arrays, compiled: two passes over memory forward, two back, an activation in the same.

Forward reads x for its statistics and once more to normalise it; backward reads x and dy for their sums and once more
for dx. An activation's sums are not kept: both passes back make them again from x, which they read anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.sums import PANEL, Slabs, settled, vector
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

# Rows of the tables that `kernels/norm.py` and `kernels/norm_back.py` fill.
_ROWS = 6
_MEAN, _DRIFT, _VAR = 0, 1, 2
_GRADIENTS = 1, 0, 2, 3  # of gamma, beta, mean and var

_RUN = 2**15  # numbers that a task of an elementwise pass takes


def _batch_norm(
    x: np.ndarray,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    mean: np.ndarray | None,
    var: np.ndarray | None,
    *,
    needs: Needs,
    eps: float,
    return_stats: bool,
    activation: str | None,
) -> tuple[Any, Any]:
    """y = activation(x̂ · gamma + beta): (..., C), (C,), ... -> (..., C), or (y, mean, var)."""
    x = dense(x)
    name, n = dtype_name(x.dtype), x.shape[-1]
    rows, panels = x.size // n if n else 0, -(-n // PANEL)
    gamma, beta = (None if v is None else dense(v) for v in (gamma, beta))
    table = np.empty((_ROWS, n), dtype=x.dtype)
    if mean is None:
        _fill_moments(x, table)
    else:
        table[_MEAN], table[_DRIFT], table[_VAR] = mean, 0.0, var
    kernel = address("norm", "line", name, PANEL)
    run(kernel, panels, n, place(table), place_of(gamma), place_of(beta), word(eps), threads=threads_for(64 * n))
    y = empty(x.shape, x.dtype)
    kernel, per = address("norm", "normalise", *vector(x), activation), _run(n)
    run(kernel, -(-rows // per), place(x), place(y), rows, n, per, place(table), threads=threads_for(x.size))
    residuals = (x, table, mean is not None, activation) if any(needs) else None
    if not return_stats:
        return y, residuals
    return (y, table[_MEAN] + table[_DRIFT], table[_VAR].copy()), residuals


def _fill_moments(x: np.ndarray, table: np.ndarray) -> None:
    """Mean, drift and variance of this batch into their rows of the table."""
    slabs = Slabs.of(x, 5)
    sizes = slabs.rows, slabs.columns, slabs.size
    with borrowed(slabs.nbytes) as parts:
        kernel = address("norm", "moments", *vector(x))
        run(kernel, slabs.tasks, place(x), *sizes, parts, slabs.step, threads=threads_for(x.size))
        settled("norm", "merge", x, slabs, parts, *sizes, place(table))


def _backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """The gradients of x, gamma, beta, and of a mean and variance that were given."""
    x, table, given, activation = residuals
    dy = dense(dy)
    n = x.shape[-1]
    rows = x.size // n if n else 0
    result = np.empty((_ROWS, n), dtype=x.dtype)
    if not given or any(needs[1:]):
        _settle(x, dy, table, activation, result)
    dx = None
    if needs[0]:
        dx, per = empty(x.shape, x.dtype), _run(n)
        places = (place(x), place(dy), place(dx))
        kernel = address("norm_back", "gradient", *vector(x), activation, given)
        sizes = (rows, n, per)
        run(kernel, -(-rows // per), *places, *sizes, place(table), place(result), threads=threads_for(x.size))
    others = (result[row].copy() if need else None for row, need in zip(_GRADIENTS, needs[1:], strict=True))
    return (dx, *others)


def _settle(x: np.ndarray, dy: np.ndarray, table: np.ndarray, activation: str | None, result: np.ndarray) -> None:
    """The sums over all rows, and what follows from them for each channel."""
    slabs = Slabs.of(x, 4)
    sizes = slabs.rows, slabs.columns, slabs.size
    with borrowed(slabs.nbytes) as parts:
        kernel, threads = address("norm_back", "gradient_sums", *vector(x), activation), threads_for(x.size)
        run(kernel, slabs.tasks, place(x), place(dy), *sizes, place(table), parts, slabs.step, threads=threads)
        settled("norm_back", "settle_gradients", x, slabs, parts, *sizes[:2], place(table), place(result))


def _run(channels: int) -> int:
    """Rows of a task."""
    return max(1, _RUN // max(channels, 1))


def _declines(*arrays: np.ndarray | None, **options: Any) -> str | None:
    return unsupported(*arrays)


PRIMITIVES = {"batch_norm": Primitive(_batch_norm, _backward, _declines)}
