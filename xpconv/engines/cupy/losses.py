"""Losses of each element: squares, and the cross-entropy of probabilities; a mean or a sum is two launches."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.cupy.arrays import computed_in, dense, unsupported
from xpconv.engines.cupy.compiled import integers, launch
from xpconv.engines.cupy.sums import Slabs, mean_factor

_NUMBERS = {"mse": 0, "binary_cross_entropy_with_logits": 1}  # as `enum Loss` in the kernels' source counts them


def _primitive(name: str) -> Primitive:
    which = np.int32(_NUMBERS[name])

    def run(y: Array, target: Array, *, needs: Needs, reduction: str) -> tuple[Array, Any]:
        y, target = dense(y), dense(target)
        residuals = (y, target, reduction) if any(needs) else None
        if reduction == "none":
            losses = cupy.empty(y.shape, dtype=y.dtype)
            launch("losses", "each", y, y.size, y, target, losses, *integers(y.size), which)
            return losses, residuals
        slabs, result = Slabs.of(y.size, 1), cupy.empty((), dtype=y.dtype)
        parts = cupy.empty((slabs.slabs, 1), dtype=computed_in(y.dtype))
        slabs.launch("losses", "slab_sums", y, y, target, parts, *integers(y.size, slabs.size), which)
        slabs.settle(y, parts, result, mean_factor(reduction, y.size))
        return result, residuals

    def backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
        y, target, reduction = residuals
        grads = tuple(cupy.empty(y.shape, dtype=y.dtype) if need else None for need in needs)
        share = (reduction == "none", np.float64(mean_factor(reduction, y.size)))
        launch("losses", "back", y, y.size, y, target, dense(dy), *grads, *integers(y.size), which, *share)
        return grads

    return Primitive(run, backward, unsupported)


PRIMITIVES = {name: _primitive(name) for name in _NUMBERS}
