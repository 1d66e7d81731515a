"""Local response normalisation: each channel by the squares of its neighbours."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.pieces import row_runs
from xpconv.engines.portable.sums import RUN, as_rows, blocks


def _neighbours(x: Array, before: int, after: int) -> Array:
    """Sum over the channels c - before .. c + after that there are: (rows, C) -> (rows, C)."""
    xp, channels = namespace(x), x.shape[1]
    offsets = range(max(-before, 1 - channels), min(after, channels - 1) + 1)
    total = xp.zeros_like(x)
    for run in blocks(len(offsets), RUN):
        block = xp.zeros_like(x)
        for offset in offsets[run]:
            lo, hi = max(-offset, 0), channels - max(offset, 0)
            block[:, lo:hi] += x[:, lo + offset : hi + offset]
        total += block
    return total


def _run(x: Array, *, needs: Needs, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Any]:
    """y = x · d ** -beta with d = k + alpha / size · Σ x²: (..., C) -> (..., C)."""
    xp, rows = namespace(x), as_rows(x)
    y = xp.empty(tuple(rows.shape), dtype=x.dtype, device=x.device)
    for run in row_runs(rows, 6 * rows.shape[1]):
        part = (run, slice(None))
        y[part] = rows[part] * _denominator(rows[part], size, alpha, k) ** -beta
    return xp.reshape(y, tuple(x.shape)), (x, size, alpha, beta, k) if any(needs) else None


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
    """dx[c] = dy[c] d[c]^-β - 2 α β / size · x[c] · Σ dy[j] x[j] d[j]^(-β - 1) over the j that c is a neighbour of."""
    x, size, alpha, beta, k = residuals
    xp, rows, dys = namespace(x), as_rows(x), as_rows(dy)
    dx = xp.empty(tuple(rows.shape), dtype=x.dtype, device=x.device)
    for run in row_runs(rows, 6 * rows.shape[1]):
        part = (run, slice(None))
        d = _denominator(rows[part], size, alpha, k)
        direct = dys[part] * d**-beta
        through = _neighbours(direct * rows[part] / d, (size - 1) // 2, size // 2)
        dx[part] = direct - (2.0 * alpha * beta / size) * rows[part] * through
    return (xp.reshape(dx, tuple(x.shape)),)


def _denominator(rows: Array, size: int, alpha: float, k: float) -> Array:
    return k + (alpha / size) * _neighbours(rows * rows, size // 2, (size - 1) // 2)


PRIMITIVES = {"local_response_norm": Primitive(_run, _backward)}
