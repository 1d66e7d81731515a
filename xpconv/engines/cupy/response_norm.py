"""Local response normalisation: a pass forward; back two, of which the first keeps what every neighbour takes."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import launch, width_of
from xpconv.engines.cupy.divider import DIVIDER, divider
from xpconv.engines.cupy.sums import SLAB_WIDTH
from xpconv.settings import current

_RESPONSE = np.dtype(
    [
        *((name, "i8") for name in ("items", "channels", "size")),
        *((name, "f8") for name in ("share", "beta", "k", "pull")),
        ("packs", DIVIDER),
    ],
    align=True,
)


def _run(x: Array, *, needs: Needs, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Any]:
    """y = x · d ** -beta with d = k + alpha / size · Σ x²: (..., C) -> (..., C)."""
    x = dense(x)
    y = cupy.empty(x.shape, dtype=x.dtype)
    _launch("forward", (x, y), size, alpha, beta, k)
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
        _launch("through", (part, back, through), *parameters)
        _launch("back", (part, back, through, dxs[piece]), *parameters)
    return (dx,)


def _launch(name: str, arrays: tuple[Array, ...], size: int, alpha: float, beta: float, k: float) -> None:
    x, channels = arrays[0], arrays[0].shape[-1]
    width = width_of(channels, *arrays, most=SLAB_WIDTH)
    items = x.size // width
    numbers = alpha / size, beta, k, 2 * alpha * beta / size
    response = np.array([(items, channels, size, *numbers, divider(channels // width).item())], dtype=_RESPONSE)
    launch("response_norm", name, x, items, *arrays, response, width=width)


PRIMITIVES = {"local_response_norm": Primitive(_run, _backward, unsupported)}
