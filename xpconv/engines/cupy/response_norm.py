"""Local response normalisation: a pass forward; back two, of which the first keeps what every neighbour takes."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch
from xpconv.settings import current


def _run(x: Array, *, needs: Needs, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Any]:
    """y = x · d ** -beta with d = k + alpha / size · Σ x²: (..., C) -> (..., C)."""
    x = dense(x)
    y = cupy.empty(x.shape, dtype=x.dtype)
    launch("response_norm", "forward", x, x.size, x, y, *_arguments(x.size, x.shape[-1], size, alpha, beta, k))
    return y, (x, size, alpha, beta, k) if any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
    """dx[c] = dy[c] d[c]^-β - 2 α β / size · x[c] · Σ dy[j] x[j] d[j]^(-β - 1) over the j that c is a neighbour of."""
    x, *parameters = residuals
    dy, dx, channels = dense(dy), cupy.empty(x.shape, dtype=x.dtype), x.shape[-1]
    rows, dtype = math.prod(x.shape[:-1]), computed_in(x.dtype)
    xs, dys, dxs = (a.reshape(rows, channels) for a in (x, dy, dx))
    at_once = max(current().workspace_limit // max(channels * dtype.itemsize, 1), 1)
    for first in range(0, rows, at_once):
        piece = slice(first, first + at_once)
        part, back = xs[piece], dys[piece]
        through = cupy.empty(part.shape, dtype=dtype)
        args = _arguments(part.size, channels, *parameters)
        launch("response_norm", "through", x, part.size, part, back, through, *args)
        launch("response_norm", "back", x, part.size, part, back, through, dxs[piece], *args)
    return (dx,)


def _arguments(count: int, channels: int, size: int, alpha: float, beta: float, k: float) -> tuple[Any, ...]:
    return *integers(count, channels, size), np.float64(alpha), np.float64(beta), np.float64(k)


PRIMITIVES = {"local_response_norm": Primitive(_run, _backward, unsupported)}
