"""Linear layers on NumPy arrays: convolutions of one cell, on the same kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba import activation as activations
from xpconv.engines.numba import choice
from xpconv.engines.numba.arrays import dense, empty, place, unsupported
from xpconv.engines.numba.direct import Finish, Weights
from xpconv.engines.numba.outer import outer
from xpconv.engines.numba.plan import line_pass
from xpconv.engines.numba.sums import bias_grad
from xpconv.engines.numba.tiling import Work, room
from xpconv.errors import dtype_name
from xpconv.packing import place_for


def run(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, *, needs: Needs, activation: str | None
) -> tuple[np.ndarray, Any]:
    """y = activation(x @ w + b): (..., in), (in, out), (out,) -> (..., out)."""
    step = _output_step(x, w)
    x, source, w = dense(x), w, dense(w)
    rows = _as_line(x)
    y = empty((*rows.shape[:-1], w.shape[1]), x.dtype)
    sums = empty(y.shape, y.dtype) if any(needs) and activation in activations.FROM_INPUT else None
    finish = Finish(None if b is None else dense(b), None, activation, sums)
    weights = Weights(place(w), w.shape[1] * w.itemsize, w.shape[0], w.shape[1], 1, source, "output")
    step.choice.run(rows, weights, y, rows.shape[1:2], step.p, finish, step.choice.cut)
    before = None if activation is None or not any(needs) else y if sums is None else sums
    y = y.reshape(*x.shape[:-1], w.shape[1])
    return y, (x if needs[1] else None, source if needs[0] else None, activation, before)


def backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dx = dz @ w.T, dw = x.T @ dz, db = the sum of dz over its rows."""
    x, w, activation, before = residuals
    dz = dense(dy)
    if activation is not None:
        dz = activations.gradient(activation, before.reshape(dy.shape), dz)
    rows = _as_line(dz)
    dx = dw = None
    if needs[0]:
        dx = _input_gradient(rows, w).reshape(*dy.shape[:-1], w.shape[0])
    if needs[1]:
        dw = empty((x.shape[-1], dy.shape[-1]), dy.dtype)
        p, chosen = _weight_step(rows, dw.shape)
        outer(_as_line(x), rows, dw, rows.shape[1:2], p, 1, chosen.cut)
    return dx, dw, bias_grad(dz) if needs[2] else None


def _input_gradient(rows: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(1, rows, out), (in, out) -> (1, rows, in)."""
    step, w = _input_step(rows, w), dense(w)
    dx = empty((*rows.shape[:-1], w.shape[0]), rows.dtype)
    weights = Weights(place(w), w.shape[1] * w.itemsize, w.shape[1], w.shape[0], 1, w, "input", 1)
    step.choice.run(rows, weights, dx, rows.shape[1:2], step.p, Finish(), step.choice.cut)
    return dx


def _output_step(x: Any, w: Any) -> choice.Step:
    """How y is computed."""
    work = _work(x, *w.shape)
    return choice.Step(work.p, choice.of_pass(work, room(), place_for(w) is not None))


def _input_step(dz: Any, w: Any) -> choice.Step:
    """How dx is computed."""
    work = _work(dz, *w.shape[::-1])._replace(turned=True)
    return choice.Step(work.p, choice.of_pass(work, room(), place_for(w) is not None))


def _weight_step(dz: Any, shape: tuple[int, ...]) -> choice.Step:
    """How dw is computed."""
    work = _work(dz, *shape)
    return choice.Step(work.p, choice.of_sum(work, room()))


def _work(x: Any, c: int, o: int) -> Work:
    return Work(dtype_name(x.dtype), 1, line_pass(math.prod(x.shape[:-1])), c, o, 1)


def _describe(x: Any, w: Any, b: Any, **_: Any) -> str:
    """The output, and what the gradients would take."""
    told = {
        "y": choice.told([_output_step(x, w).choice]),
        "dx": choice.told([_input_step(x, w).choice]),
        "dw": choice.told([_weight_step(x, w.shape).choice]),
    }
    return "; ".join(f"{name}: {text}" for name, text in told.items())


def _as_line(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (1, rows, C): an image of one axis."""
    return x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1])


PRIMITIVES = {"linear": Primitive(run, backward, lambda x, w, b, **_: unsupported(x, w), _describe)}
