"""Softmax, its logarithm and its cross-entropy on NumPy arrays, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import copied, dense, empty, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.loss import factor
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_RUN = 2**12  # numbers of a task; an exponential is some ten times the work of a number that is only moved


def _along(factory: str, logarithm: bool, axis: int, *arrays: np.ndarray) -> np.ndarray:
    """A softmax or its gradient along any axis of arrays of one shape."""
    arrays = tuple(dense(x) for x in arrays)
    x = arrays[0]
    y = empty(x.shape, x.dtype)
    (name, lanes), n = _kind(x), x.shape[axis]
    places, threads = [place(a) for a in (*arrays, y)], threads_for(5 * x.size)
    inner = math.prod(x.shape[axis + 1 :])
    if not x.size:
        return y
    if inner == 1:
        rows, per = x.size // n, _rows(n)
        run(address("softmax", "rows" + factory, name, lanes, logarithm), -(-rows // per), *places, rows, n, per,
            threads=threads)  # fmt: skip
    else:
        kernel = address("softmax", "planes" + factory, name, lanes, inner % lanes != 0, logarithm)
        run(kernel, x.size // (n * inner), *places, n, inner, threads=threads)
    return y


def _rows(n: int) -> int:
    """Rows of a task."""
    return max(1, _RUN // max(n, 1))


def _pair(logarithm: bool) -> Primitive:
    def forward(x: np.ndarray, *, needs: Needs, axis: int) -> tuple[np.ndarray, Any]:
        y = _along("", logarithm, axis, x)
        return y, (y, axis) if any(needs) else None

    def backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, ...]:
        y, axis = residuals
        return (_along("_back", logarithm, axis, y, dy),)

    return Primitive(forward, backward, lambda x, **options: unsupported(x))


def _cross_entropy(
    logits: np.ndarray, labels: np.ndarray, *, needs: Needs, reduction: str, label_smoothing: float
) -> tuple[np.ndarray, Any]:
    """-Σ target · log softmax(logits): (..., classes), integers (...) -> (...) or ()."""
    logits, labels = dense(logits), dense(labels if labels.dtype == np.int64 else copied(labels, np.int64))
    dtype, rows, n, threads = logits.dtype, labels.size, logits.shape[-1], threads_for(5 * logits.size)
    kept = np.empty((3, rows), dtype=dtype)  # losses, peaks, sums of exponentials
    losses, step, per = place(kept), rows * dtype.itemsize, rows if threads == 1 else _rows(n)
    summed = reduction != "none"
    loss = np.empty((), dtype=dtype) if summed else kept[0].reshape(labels.shape)
    sum_of = word(factor(reduction, rows)), place(loss) if summed else 0
    kernel, tasks = address("loss", "cross_entropy", *_kind(logits)), -(-rows // max(per, 1))
    sizes = place(logits), place(labels), rows, n, per, word(label_smoothing)
    run(kernel, tasks, *sizes, losses, losses + step, losses + 2 * step, *sum_of, threads=threads)
    if summed and tasks != 1:
        run(address("loss", "reduce", dtype_name(dtype)), 1, losses, rows, *sum_of)
    residuals = (logits, labels, kept, reduction, label_smoothing) if needs[0] else None
    return loss if summed else copied(loss), residuals


def _kind(x: np.ndarray) -> tuple[str, int]:
    """The dtype and the lanes that kernels are made for."""
    name = dtype_name(x.dtype)
    return name, machine().lanes(name)


def _cross_entropy_backward(residuals: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dlogits = (softmax(logits) - target) · dy, nan where the label was unknown."""
    logits, labels, kept, reduction, label_smoothing = residuals
    dy = dense(dy)
    dtype, rows, n = logits.dtype, labels.size, logits.shape[-1]
    out = empty(logits.shape, dtype)
    first, step, per = place(kept), rows * dtype.itemsize, _rows(n)
    kernel = address("loss", "cross_entropy_back", *_kind(logits))
    sizes = place(logits), place(labels), rows, n, per, word(label_smoothing)
    sources = first + step, first + 2 * step, place(dy), int(reduction == "none"), word(factor(reduction, rows))
    run(kernel, -(-rows // per), *sizes, *sources, place(out), threads=threads_for(5 * logits.size))
    return out, None


def _declines(logits: np.ndarray, labels: np.ndarray, **options: Any) -> str | None:
    return unsupported(logits)


PRIMITIVES = {
    "softmax": _pair(logarithm=False),
    "log_softmax": _pair(logarithm=True),
    "softmax_cross_entropy": Primitive(_cross_entropy, _cross_entropy_backward, _declines),
}
