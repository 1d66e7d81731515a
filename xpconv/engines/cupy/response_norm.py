"""Local response normalisation: a pass over memory each way, back by blocks that hold whole rows."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import dense, unsupported
from xpconv.engines.cupy.compiled import kernel, launch, width_of
from xpconv.engines.cupy.divider import DIVIDER, divider
from xpconv.errors import dtype_name

_THREADS, _ROOM = 256, 2048  # as in the kernels' source: of a block, and numbers that it holds
_MOST_BLOCKS = 2**16
_RESPONSE = np.dtype(
    [
        ("items", "i8"),
        *((name, "i4") for name in ("at_once", "before", "after")),
        ("packs", DIVIDER),
        *((name, "f8") for name in ("share", "beta", "k", "pull")),
    ],
    align=True,
)


def _run(x: Array, *, needs: Needs, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Any]:
    """y = x · d ** -beta with d = k + alpha / size · Σ x²: (..., C) -> (..., C)."""
    x = dense(x)
    y = cupy.empty(x.shape, dtype=x.dtype)
    if x.size:
        width = width_of(x.shape[-1], x, y)
        name = "forward_of_five" if size == 5 else "forward"
        args = x, y, _response(x, width, size, alpha, beta, k)
        launch("response_norm", name, x, x.size // width, *args, width=width)
    return y, (x, size, alpha, beta, k) if any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
    """dx[c] = dy[c] d[c]^-β - 2 α β / size · x[c] · Σ dy[j] x[j] d[j]^(-β - 1) over the j that c is a neighbour of."""
    x, size, *numbers = residuals
    dy, dx = dense(dy), cupy.empty(x.shape, dtype=x.dtype)
    if x.size:
        width = width_of(x.shape[-1], x, dy, dx)
        response = _response(x, width, size, *numbers)
        blocks = -(-(x.size // width) // int(response["at_once"][0]))
        name = "gradient_of_five" if size == 5 else "gradient"
        compiled = kernel("response_norm", name, dtype_name(x.dtype), x.size, width)
        compiled((min(blocks, _MOST_BLOCKS),), (_THREADS,), (x, dy, dx, response))
    return (dx,)


def _response(x: Array, width: int, size: int, alpha: float, beta: float, k: float) -> np.ndarray[Any, Any]:
    """What kernels are told."""
    channels = x.shape[-1]
    packs = channels // width
    window = min(size // 2, channels), min((size - 1) // 2, channels)
    numbers = alpha / size, beta, k, 2 * alpha * beta / size
    told = (x.size // width, _ROOM // channels * packs, *window, divider(packs).item(), *numbers)
    return np.array([told], dtype=_RESPONSE)


def _declines(x: Array, **_: Any) -> str | None:
    if x.shape[-1] > _ROOM:
        return f"takes rows of at most {_ROOM} channels"
    return unsupported(x)


PRIMITIVES = {"local_response_norm": Primitive(_run, _backward, _declines)}
