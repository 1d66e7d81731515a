"""Layer normalisation on NumPy arrays, compiled: a pass over memory each way, the parameters' gradients in it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, streams, unsupported, zeros
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import ROW_KEPT
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.sums import Slabs, settled, vector
from xpconv.engines.numba.team import run, threads_for

_RUN = 2**14  # numbers of a task, as far as rows are shorter


class Kept(NamedTuple):
    """Residuals."""

    x: np.ndarray  # (rows, columns)
    gamma: np.ndarray  # (lines, columns), for rows in turn
    table: np.ndarray | None
    shape: tuple[int, ...]  # of x
    parameters: tuple[int, ...]  # shape of gamma and beta


def normalise(
    x: np.ndarray, shape: tuple[int, int], gamma: np.ndarray | None, beta: np.ndarray | None, needs: Needs, eps: float
) -> tuple[np.ndarray, Kept | None]:
    """y = x̂ · gamma + beta, for rows of x seen as (rows, columns); gamma and beta go round all rows."""
    seen, n = dense(x).reshape(shape), shape[1]
    given = next((v.shape for v in (gamma, beta) if v is not None), ())
    size = math.prod(given) if given else n
    gamma, beta = (np.full(size, default, x.dtype) if v is None else dense(v) for v, default in ((gamma, 1), (beta, 0)))
    y, table = empty(x.shape, x.dtype), np.empty((shape[0], ROW_KEPT), dtype=x.dtype) if any(needs) else None
    if x.size:
        kind, per = vector(seen), max(1, _RUN // n)
        kernel = address("rownorm", "forward", *kind, streams(seen, y.reshape(shape), kind.lanes))
        words = place(seen), place(y), *shape, per, place_of(table), place(gamma), place(beta), size // n, word(eps)
        run(kernel, -(-shape[0] // per), *words, threads=threads_for(x.size))
    return y, Kept(seen, gamma, table, x.shape, given) if any(needs) else None


def gradients(kept: Kept, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂)) with g = dy · gamma; dgamma = Σ dy x̂, dbeta = Σ dy."""
    x, dy = kept.x, dense(dy)
    dx = empty(kept.shape, x.dtype) if needs[0] else None
    both = zeros((2, kept.gamma.size), x.dtype)
    if x.size:
        rows, n = x.shape
        # Few long rows are a task each; of short ones as many as make their sums' memory small beside theirs.
        columns, size = kept.gamma.size, max(-(-rows // 64), min(32, -(-rows // 8)))
        slabs = Slabs.cut(rows, columns, 4 * columns, size, x.itemsize)
        kind = vector(x)
        kernel = address("rownorm", "backward", *kind, dx is not None and streams(x, dx.reshape(x.shape), kind.lanes))
        with borrowed(slabs.nbytes) as parts:
            sizes = rows, n, slabs.size, place_of(kept.table), place(kept.gamma), kept.gamma.size // n
            run(kernel, slabs.tasks, place(x), place(dy), place_of(dx), *sizes, parts, slabs.step,
                threads=threads_for(2 * x.size))  # fmt: skip
            if any(needs[1:]):
                sums = slabs._replace(columns=2 * slabs.columns)
                settled("sums", "settle", x, sums, parts, sums.columns, place(both))
    return dx, *(row.reshape(kept.parameters) if need else None for row, need in zip(both, needs[1:], strict=True))


def _layer_norm(
    x: np.ndarray,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    *,
    needs: Needs,
    axes: tuple[int, ...],
    eps: float,
) -> tuple[np.ndarray, Any]:
    """y = x̂ · gamma + beta, by the mean and variance over the last axes."""
    n = math.prod(x.shape[axis] for axis in axes)
    return normalise(x, (math.prod(x.shape[: x.ndim - len(axes)]), n), gamma, beta, needs, eps)


def _declines(x: np.ndarray, *arrays: Any, axes: tuple[int, ...], **_: Any) -> str | None:
    if axes != tuple(range(x.ndim - len(axes), x.ndim)):
        return "normalises over the last axes, not those with others behind them"
    return unsupported(x, *arrays)


PRIMITIVES = {"layer_norm": Primitive(_layer_norm, gradients, _declines)}
