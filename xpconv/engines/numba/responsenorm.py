"""Local response normalisation on NumPy arrays, compiled: one pass over memory each way."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, streams, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import Response
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name
from xpconv.settings import current

_RUN = 2**15  # numbers of a task, as far as rows are shorter
_STRETCH = 2**10  # numbers that are taken at a time: with dy and scratch they stay in the L1 cache
_MOST_QUARTERS = 8  # in 4 beta: each is a product more, and rounded


def _along(
    name: str, x: np.ndarray, dy: np.ndarray | None, size: int, alpha: float, beta: float, k: float
) -> np.ndarray:
    """y, or dx of a dy: (..., C) -> (..., C)."""
    x, dtype, n = dense(x), dtype_name(x.dtype), x.shape[-1]
    out, lanes = empty(x.shape, x.dtype), machine().lanes(dtype)
    if not x.size:
        return out
    rows, threads = x.size // n, threads_for(4 * x.size)
    before, after = min(size // 2, n - 1), min((size - 1) // 2, n - 1)
    gap, planes, share = max(before, after), 2 if dy is None else 4, alpha / size
    row = n + gap
    most = current().workspace_limit // (threads * planes * row * x.itemsize)
    stretch = max(1, min(_STRETCH // n, most))
    plane = -(-(gap + stretch * row + 8 * lanes) // lanes) * lanes
    per, slot = max(1, _RUN // n), planes * plane * x.itemsize + 63 & -64
    sizes = rows, n, before, after, gap, word(share), word(k), word(2 * share * beta), round(4 * beta), per, stretch
    with borrowed(threads * slot) as scratch:
        words = Response(place(x), place_of(dy), place(out), *sizes, scratch, slot, plane)
        kernel = address("responsenorm", name, dtype, lanes, streams(x, out, lanes))
        run(kernel, -(-rows // per), *words, threads=threads)
    return out


def _run(x: np.ndarray, *, needs: Needs, **options: Any) -> tuple[np.ndarray, Any]:
    """y = x · d ** -beta with d = k + alpha / size · Σ x²: (..., C) -> (..., C)."""
    return _along("forward", x, None, **options), (x, options) if any(needs) else None


def _backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
    """dx[c] = dy[c] d[c]^-β - 2 α β / size · x[c] · Σ dy[j] x[j] d[j]^(-β - 1) over the j that c is a neighbour of."""
    x, options = residuals
    return (_along("backward", x, dense(dy), **options),)


def _declines(x: np.ndarray, *, size: int, alpha: float, beta: float, k: float) -> str | None:
    if 4 * beta not in range(_MOST_QUARTERS + 1) or alpha < 0 or k < 0:
        return f"takes a beta of quarters up to {_MOST_QUARTERS / 4:g}, and no alpha or k below 0"
    return unsupported(x)


PRIMITIVES = {"local_response_norm": Primitive(_run, _backward, _declines)}
