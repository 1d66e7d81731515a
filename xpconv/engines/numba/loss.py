"""Losses of each element on NumPy arrays, compiled, and their mean or sum; cross-entropy of labels is a softmax's."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_RUN = 2**14  # numbers a task: what it sums depends on nothing else, so that threads change no bit


def _pair(name: str) -> Primitive:
    """The primitive of a loss of (y, target)."""

    def forward(y: np.ndarray, target: np.ndarray, *, needs: Needs, reduction: str) -> tuple[np.ndarray, Any]:
        y, target = dense(y), dense(target)
        dtype, tasks, worth = dtype_name(y.dtype), max(-(-y.size // _RUN), 1), word(factor(reduction, y.size))
        each = reduction == "none"
        loss = empty(y.shape if each else (), y.dtype)
        parts = None if each or tasks == 1 else np.empty(tasks, dtype=y.dtype)
        result = 0 if each else place(loss)
        words = place(y), place(target), y.size, _RUN, place(loss) if each else 0, place_of(parts), worth, result
        run(address("loss", "paired", name, dtype, machine().lanes(dtype)), tasks, *words, threads=threads_for(y.size))
        if parts is not None:
            run(address("loss", "reduce", dtype), 1, place(parts), tasks, worth, result)
        return loss, (y, target, reduction) if any(needs) else None

    def backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
        y, target, reduction = residuals
        dy, dtype = dense(dy), dtype_name(y.dtype)
        gradients = tuple(empty(y.shape, y.dtype) if need else None for need in needs)
        share = place(dy), int(reduction == "none"), word(factor(reduction, y.size))
        words = place(y), place(target), y.size, _RUN, *share, *map(place_of, gradients)
        kernel = address("loss", "paired_back", name, dtype, machine().lanes(dtype))
        run(kernel, -(-y.size // _RUN), *words, threads=threads_for(y.size))
        return gradients

    return Primitive(forward, backward, lambda y, target, **options: unsupported(y, target))


def factor(reduction: str, count: int) -> float:
    """What each loss is worth in the result."""
    return 1.0 / max(count, 1) if reduction == "mean" else 1.0


PRIMITIVES = {name: _pair(name) for name in ("mse", "binary_cross_entropy_with_logits")}
