"""Dropout on NumPy arrays, compiled: the same masks as on every engine, drawn on all threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_LIMB = 0xFFFFFFFF
_BLOCKS = 2**11  # of four numbers, which a task draws
_RUN = 2**15  # numbers of a task that draws nothing
_DRAWN = 20  # what drawing a number costs, in numbers that are only moved


def _dropout(x: np.ndarray, *, needs: Needs, rate: float, seed: int, counter: Any) -> tuple[np.ndarray, Any]:
    """y = x / (1 - rate) where the mask holds, else 0; any shape."""
    x = dense(x)
    y = empty(x.shape, x.dtype)
    mask = np.empty(x.size, np.uint8) if any(needs) else None
    scale = word(1.0 / (1.0 - rate))
    arrays = place(x), place(y), place_of(mask), x.size, _BLOCKS

    def words() -> tuple[int, ...]:
        step = int(counter)
        limbs = seed & _LIMB, seed >> 32, step & _LIMB, (step >> 32) & _LIMB
        return (*arrays, *limbs, math.floor(rate * 2**32), scale)

    run(
        address("dropout", "forward", dtype_name(x.dtype), mask is not None),
        -(-x.size // (4 * _BLOCKS)),
        *words(),
        threads=threads_for(_DRAWN * x.size),
        fresh=words,
    )
    return y, (mask, scale) if mask is not None else None


def _backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
    """dx = dy / (1 - rate) where the mask holds, else 0."""
    (mask, scale), dy = residuals, dense(dy)
    dx = empty(dy.shape, dy.dtype)
    run(
        address("dropout", "backward", dtype_name(dy.dtype)),
        -(-dy.size // _RUN),
        *(place(mask), place(dy), place(dx), dy.size, _RUN, scale),
        threads=threads_for(dy.size),
    )
    return (dx,)


PRIMITIVES = {"dropout": Primitive(_dropout, _backward, lambda x, **_: unsupported(x))}
