"""Resizing on NumPy arrays, compiled: copies or weighted sums of cells, and in the gradient of the outputs' dy."""

from __future__ import annotations

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense
from xpconv.engines.numba.sampling import Sizes, copied, resizing_plan, summed, unfit, unsummable
from xpconv.errors import dtype_name

_Residuals = tuple[Sizes, Sizes, str, bool]


def resize(
    x: np.ndarray, *, needs: Needs, output_size: Sizes, mode: str, align_corners: bool
) -> tuple[np.ndarray, _Residuals | None]:
    """y = x sampled on another grid: (N, *size, C) -> (N, *output_size, C)."""
    x, how = dense(x), (x.shape[1:-1], output_size, mode, align_corners)
    if mode == "bilinear":
        y = summed(x, resizing_plan(*how, back=False, dtype=dtype_name(x.dtype)))
    else:
        y = copied(x, resizing_plan(*how, back=False))
    return y, how if needs[0] else None


def resize_grad(residuals: _Residuals, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray]:
    """dx = dy, weighted, at the cells that were sampled: (N, *output_size, C) -> (N, *size, C)."""
    return (summed(dense(dy), resizing_plan(*residuals, back=True, dtype=dtype_name(dy.dtype))),)


def _declines(x: np.ndarray, *, output_size: Sizes, mode: str, align_corners: bool) -> str | None:
    reason = unfit(x, output_size)
    if reason or x.dtype.kind in "biu":
        return reason
    how = x.shape[1:-1], output_size, mode, align_corners
    return unsummable(x, *(resizing_plan(*how, back=back, dtype=dtype_name(x.dtype)) for back in (False, True)))


PRIMITIVES = {"resize": Primitive(resize, resize_grad, _declines)}
