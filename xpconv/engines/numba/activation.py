"""Activations on NumPy arrays, compiled: one pass over memory each way, whatever the function."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.activations import FROM_OUTPUT
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense, empty, place, streams, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_double, _integer = struct.Struct("d").pack, struct.Struct("q").unpack

FROM_INPUT = ("silu", "hard_swish")  # the residuals of these are x

RUN = 2**15  # numbers a task: long enough to be worth handing over, short enough to share out evenly
_LONGEST = 2**17  # where there are more: tasks that follow one another in memory read it up to a seventh faster


def word(number: float) -> int:
    """A number as the word that kernels read it from."""
    return _integer(_double(number))[0]


def share(count: int) -> tuple[int, int, int]:
    """Numbers of each task, how many tasks, and on how many threads, which then have as much to do."""
    threads = threads_for(count)
    tasks = threads * -(-count // (threads * _LONGEST)) if count > threads * RUN else -(-count // RUN)
    each = -(-count // max(tasks, 1)) + 63 & -64  # whole cache lines
    return each, tasks, threads


def forward(name: str, x: np.ndarray, first: float = 0.0, second: float = 0.0) -> np.ndarray:
    x = dense(x)
    y = empty(x.shape, x.dtype)
    dtype = dtype_name(x.dtype)
    lanes = machine().lanes(dtype)
    kernel = address("activation", "forward", name, dtype, lanes, streams(x, y, lanes))
    parameters = (word(first), word(second))
    each, tasks, threads = share(x.size)
    run(kernel, tasks, place(x), place(y), x.size, each, *parameters, threads=threads)
    return y


def gradient(name: str, kept: np.ndarray, dy: np.ndarray, first: float = 0.0, second: float = 0.0) -> np.ndarray:
    kept, dy = dense(kept), dense(dy)
    dx = empty(dy.shape, dy.dtype)
    dtype = dtype_name(dy.dtype)
    lanes = machine().lanes(dtype)
    kernel = address("activation", "backward", name, dtype, lanes, streams(dy, dx, lanes))
    places, parameters = (place(kept), place(dy), place(dx)), (word(first), word(second))
    each, tasks, threads = share(dy.size)
    run(kernel, tasks, *places, dy.size, each, *parameters, threads=threads)
    return dx


def _plain(name: str) -> Primitive:
    def value(x: np.ndarray, *, needs: Needs) -> tuple[np.ndarray, Any]:
        y = forward(name, x)
        return y, (y if name in FROM_OUTPUT else x) if any(needs) else None

    def backward(residuals: np.ndarray, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
        return (gradient(name, residuals, dy),)

    return Primitive(value, backward, unsupported)


def _parametric(name: str, parameters: Callable[..., tuple[float, ...]]) -> Primitive:
    """The primitive of an activation whose options ``parameters`` turns into at most two numbers."""

    def value(x: np.ndarray, *, needs: Needs, **options: Any) -> tuple[np.ndarray, Any]:
        numbers = parameters(**options)
        return forward(name, x, *numbers), (x, numbers) if any(needs) else None

    def backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
        x, numbers = residuals
        return (gradient(name, x, dy, *numbers),)

    return Primitive(value, backward, lambda x, **options: unsupported(x))


_GELUS = {"none": "gelu", "tanh": "gelu_tanh"}


def _gelu(x: np.ndarray, *, needs: Needs, approximate: str) -> tuple[np.ndarray, Any]:
    """y = x Φ(x), or its approximation."""
    name = _GELUS[approximate]
    return forward(name, x), (name, x) if any(needs) else None


def _gelu_backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
    name, x = residuals
    return (gradient(name, x, dy),)


def _bounds(min: float | None, max: float | None) -> tuple[float, float]:
    return -math.inf if min is None else min, math.inf if max is None else max


PRIMITIVES = {name: _plain(name) for name in (*FROM_OUTPUT, *FROM_INPUT)} | {
    "clip": _parametric("clip", _bounds),
    "leaky_relu": _parametric("leaky_relu", lambda slope: (slope,)),
    "elu": _parametric("elu", lambda alpha: (alpha,)),
    "hard_sigmoid": _parametric("hard_sigmoid", lambda alpha, beta: (alpha, beta)),
    "gelu": Primitive(_gelu, _gelu_backward, lambda x, **options: unsupported(x)),
}
