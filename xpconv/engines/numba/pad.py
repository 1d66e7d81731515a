"""Padding of the spatial axes on NumPy arrays, compiled: copies, and in the gradient sums over a cell's copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense
from xpconv.engines.numba.sampling import Pairs, Sizes, copied, padding_plan, summed, unfit, unsummable
from xpconv.errors import dtype_name

_Residuals = tuple[Sizes, Pairs, str]


def pad(x: np.ndarray, *, needs: Needs, padding: Pairs, mode: str, value: Any) -> tuple[np.ndarray, _Residuals | None]:
    """y = x with borders: (N, *spatial, C) -> (N, *(n + before + after), C)."""
    how = x.shape[1:-1], padding, mode
    return copied(dense(x), padding_plan(*how, back=False), value), how if needs[0] else None


def pad_grad(residuals: _Residuals, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray]:
    """dx = the sum of dy over the cell and all its copies: (N, *(n + before + after), C) -> (N, *spatial, C)."""
    dy = dense(dy)
    if residuals[2] == "constant":
        return (copied(dy, padding_plan(*residuals, back=True)),)
    return (summed(dy, padding_plan(*residuals, back=True, dtype=dtype_name(dy.dtype))),)


def _declines(x: np.ndarray, *, padding: Pairs, mode: str, **_: Any) -> str | None:
    sizes = x.shape[1:-1]
    out = tuple(n + before + after for n, (before, after) in zip(sizes, padding, strict=True))
    reason = unfit(x, out)
    if reason or mode == "constant" or x.dtype.kind in "biu":
        return reason
    return unsummable(x, padding_plan(sizes, padding, mode, back=True, dtype=dtype_name(x.dtype)))


PRIMITIVES = {"pad": Primitive(pad, pad_grad, _declines)}
