"""Batch normalisation on NumPy arrays, compiled: two passes over memory forward, two back, an activation in the same.

Forward reads x for its statistics and once more to normalise it; backward reads x and dy for their sums and once more
for dx. The second pass starts at the end, where the first one left the cache full; what it stores goes past the cache
if it would push that out. An activation's sums are not kept: both passes back make them again from x, which they read
anyway. Where a residual is added before the activation, the first pass back writes dz, which is the residual's gradient
too.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import FROM_OUTPUT, word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, streams, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.sums import PANEL, Slabs, settled, vector
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name
from xpconv.runtime import also

# Rows of the tables that `kernels/norm.py` and `kernels/norm_back.py` fill.
_ROWS = 6
_MEAN, _DRIFT, _VAR = 0, 1, 2
_GRADIENTS = 1, 0, 2, 3  # of gamma, beta, mean and var

_RUN = 2**15  # numbers that a task of an elementwise pass takes


class _Kept(NamedTuple):
    """Residuals."""

    x: np.ndarray
    table: np.ndarray
    given: bool  # the statistics were, and nothing of dx flows through them
    activation: str | None
    joined: bool  # whether a residual was added
    other: np.ndarray | None  # what the activation's derivative is taken at: y, or the residual


def _batch_norm(
    x: np.ndarray,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    mean: np.ndarray | None,
    var: np.ndarray | None,
    residual: np.ndarray | None,
    *,
    needs: Needs,
    eps: float,
    return_stats: bool,
    activation: str | None,
) -> tuple[Any, Any]:
    """y = activation(x̂ · gamma + beta + residual): (..., C), (C,), ... -> (..., C), or (y, mean, var)."""
    x, n = dense(x), x.shape[-1]
    rows = x.size // n if n else 0
    gamma, beta, residual = (None if v is None else dense(v) for v in (gamma, beta, residual))
    table = np.empty((_ROWS, n), dtype=x.dtype)
    line = n, place(table), place_of(gamma), place_of(beta), word(eps)
    stats = np.empty((2, n), dtype=x.dtype)  # mean and variance
    if mean is None or var is None:
        _fill_table(x, stats, line)
    else:
        also(functools.partial(_give, table, stats if return_stats else None, mean, var))
        run(address("norm", "line", dtype_name(x.dtype), PANEL), -(-n // PANEL), *line, threads=threads_for(64 * n))
    y, joined = empty(x.shape, x.dtype), residual is not None
    kind, per = vector(x), _run(n)
    kernel = address("norm", "normalise", *kind, activation, joined, streams(x, y, kind.lanes))
    words = place(x), place(y), rows, n, per, line[1], place_of(residual)
    run(kernel, -(-rows // per), *words, threads=threads_for(x.size))
    kept = None
    if any(needs):
        other = y if activation in FROM_OUTPUT else residual
        kept = _Kept(x, table, mean is not None, activation, joined, other if joined and activation else None)
    return (y, *stats) if return_stats else y, kept


def _give(table: np.ndarray, stats: np.ndarray | None, mean: np.ndarray, var: np.ndarray) -> None:
    table[_MEAN], table[_DRIFT], table[_VAR] = mean, 0.0, var
    if stats is not None:
        stats[:] = mean, var


def _fill_table(x: np.ndarray, stats: np.ndarray, line: tuple[int, ...]) -> None:
    """Mean and variance of this batch, and the table that `line` makes of them, which y is made of."""
    slabs = Slabs.of(x, 5)
    with borrowed(slabs.nbytes) as parts:
        sizes = slabs.rows, slabs.columns, slabs.size
        run(address("norm", "moments", *vector(x)), slabs.tasks, place(x), *sizes, parts, slabs.step,
            threads=threads_for(x.size))  # fmt: skip
        settled("norm", "merge", x, slabs, parts, slabs.rows, slabs.size, *line, place(stats))


def _backward(kept: _Kept, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """The gradients of x, gamma, beta, of a mean and variance that were given, and of a residual."""
    x, n = kept.x, kept.x.shape[-1]
    dz = dy = dense(dy)
    if kept.other is not None:
        dz = empty(dy.shape, dy.dtype)
    result = np.empty((_ROWS, n), dtype=x.dtype)
    if not kept.given or any(needs[1:5]) or dz is not dy:
        _settle(kept, dy, dz, result)
    dx = None
    if needs[0]:
        dx, rows, per = empty(x.shape, x.dtype), x.size // n if n else 0, _run(n)
        activation = None if kept.joined else kept.activation
        kind = vector(x)
        kernel = address("norm_back", "gradient", *kind, activation, kept.given, streams(x, dx, kind.lanes))
        words = place(x), place(dz), place(dx), rows, n, per, place(kept.table), place(result)
        run(kernel, -(-rows // per), *words, threads=threads_for(x.size))
    others = (result[row] if need else None for row, need in zip(_GRADIENTS, needs[1:5], strict=True))
    return (dx, *others, dz if needs[5] else None)


def _settle(kept: _Kept, dy: np.ndarray, dz: np.ndarray, result: np.ndarray) -> None:
    """The sums over all rows, and what follows from them for each channel; also dz, if an activation followed a sum."""
    x, table, slabs = kept.x, place(kept.table), Slabs.of(kept.x, 4)
    sizes = slabs.rows, slabs.columns, slabs.size
    joined = (place(kept.other), place(dz)) if kept.other is not None else (0, 0)
    with borrowed(slabs.nbytes) as parts:
        kernel = address("norm_back", "gradient_sums", *vector(x), kept.activation, kept.other is not None)
        words = place(x), place(dy), *sizes, table, parts, slabs.step, *joined
        run(kernel, slabs.tasks, *words, threads=threads_for(x.size))
        settled("norm_back", "settle_gradients", x, slabs, parts, *sizes[:2], table, place(result))


def _advance(*arrays: np.ndarray, momentum: float, factors: tuple[float, float]) -> None:
    """Running mean and variance (first) moved in place towards those of a batch (then), times the factors."""
    running, batch = arrays[:2], list(map(dense, arrays[2:]))
    each = zip(map(place, running), map(place, batch), map(word, factors), strict=True)
    words = running[0].size, word(momentum), *itertools.chain(*each)
    run(address("norm", "advance", dtype_name(running[0].dtype)), 2, *words)


def _advances(*arrays: np.ndarray, **_: Any) -> str | None:
    if len({x.dtype for x in arrays}) > 1 or not all(x.flags.c_contiguous for x in arrays[:2]):
        return "moves contiguous statistics of one dtype only"
    return unsupported(*arrays)


def _run(channels: int) -> int:
    """Rows of a task."""
    return max(1, _RUN // max(channels, 1))


def _declines(*arrays: np.ndarray | None, **options: Any) -> str | None:
    return unsupported(*arrays)


PRIMITIVES = {
    "batch_norm": Primitive(_batch_norm, _backward, _declines),
    "move_statistics": Primitive(_advance, declines=_advances),
}
