"""Losses of each element: squares, and the cross-entropy of probabilities; a mean or a sum is two launches."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.sums import SLAB_WIDTH, Slabs, mean_factor, settle

_NUMBERS = {"mse": 0, "binary_cross_entropy_with_logits": 1}  # as `enum Loss` in the kernels' source counts them


def _primitive(name: str) -> Primitive:
    which = np.int32(_NUMBERS[name])

    def run(y: Array, target: Array, *, needs: Needs, reduction: str) -> tuple[Array, Any]:
        y, target = dense(y), dense(target)
        residuals = (y, target, reduction) if any(needs) else None
        if reduction == "none":
            losses = cupy.empty(y.shape, dtype=y.dtype)
            width = width_of(y.size, y, target, losses)
            items = y.size // width
            launch("losses", "each", y, items, y, target, losses, *integers(items), which, width=width)
            return losses, residuals
        width, result = width_of(y.size, y, target, most=SLAB_WIDTH), cupy.empty((), dtype=y.dtype)
        slabs = Slabs.of(y.size // width, width, width)
        parts = cupy.empty((slabs.slabs, width), dtype=computed_in(y.dtype))
        slabs.launch("losses", "slab_sums", y, y, target, parts, *integers(slabs.rows, slabs.size), which)
        settle(parts, result, mean_factor(reduction, y.size))
        return result, residuals

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
        y, target, reduction = residuals
        grads = tuple(cupy.empty(y.shape, dtype=y.dtype) if need else None for need in needs)
        share = (reduction == "none", np.float64(mean_factor(reduction, y.size)))
        dy = dense(dy)
        width = width_of(y.size, y, target, *grads, *([dy] if reduction == "none" else []))
        args = (y, target, dy, *grads, *integers(y.size // width), which, *share)
        launch("losses", "back", y, y.size // width, *args, width=width)
        return grads

    return Primitive(run, backward, unsupported)


PRIMITIVES = {name: _primitive(name) for name in _NUMBERS}
