"""The rectifier whose slopes are learnt, on NumPy arrays, compiled: one pass over memory each way."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import share
from xpconv.engines.numba.arrays import dense, empty, place, place_of, streams, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.sums import Slabs, settled
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name
from xpconv.runtime import made

# Vectors: rows of fewer slopes are made whole vectors, since sums that are read again at once must not overlap.
_FEW = 8


@lru_cache(maxsize=64)
def _row(slopes: int, lanes: int) -> tuple[int, np.ndarray]:
    """How long a row is, see `kernels/prelu.py`, and the slopes of a row and a vector."""
    width = slopes
    if slopes < _FEW * lanes:
        width = math.lcm(slopes, lanes)
        width *= max(1, _FEW * lanes // 2 // width)
    return width, np.arange(width + lanes) % slopes


def _prelu(x: np.ndarray, slope: np.ndarray, *, needs: Needs) -> tuple[np.ndarray, Any]:
    """y = x where x > 0, else slope · x: (..., C), (C,) or a single slope -> (..., C)."""
    x, dtype = dense(x), dtype_name(x.dtype)
    lanes, y = machine().lanes(dtype), empty(x.shape, x.dtype)
    width, numbers = _row(slope.size, lanes)
    slopes = made(lambda: dense(slope).reshape(-1)[numbers])
    each, tasks, threads = share(x.size)
    words = place(x), place(slopes), place(y), x.size, width, each
    run(address("prelu", "forward", dtype, lanes, streams(x, y, lanes)), tasks, *words, threads=threads)
    return y, (x, slopes, slope.shape) if any(needs) else None


def _backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dx = dy where x > 0, else slope · dy; the slope's gradient is the sum of min(x, 0) · dy over the rows."""
    x, slopes, shape = residuals
    dy, dtype = dense(dy), dtype_name(x.dtype)
    dx, dslope = (empty(x.shape, x.dtype) if needs[0] else None), np.empty(shape, dtype=x.dtype)
    lanes, n = machine().lanes(dtype), dslope.size
    width, _ = _row(n, lanes)
    reach = width + lanes
    slabs = Slabs.sized(-(-x.size // width), n, reach + n + -n % lanes, x.itemsize)
    with borrowed(slabs.nbytes) as parts:
        words = place(x), place(dy), place(slopes), place_of(dx), x.size, n, width, slabs.size
        past = dx is not None and streams(x, dx, lanes)
        kernel, summed = address("prelu", "backward", dtype, lanes, past), parts if needs[1] else 0
        run(kernel, slabs.tasks, *words, summed, slabs.step, threads=threads_for(x.size))
        if needs[1]:
            settled("sums", "settle", x, slabs, parts + reach * x.itemsize, n, place(dslope))
    return dx, dslope if needs[1] else None


PRIMITIVES = {"prelu": Primitive(_prelu, _backward, unsupported)}
