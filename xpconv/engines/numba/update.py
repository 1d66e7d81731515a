"""Optimizer updates of all parameters in one job: SGD, Adam and AdamW, by the formulas of `train.optim`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_RUN = 2**15  # numbers of a task
_MOVED = 5  # numbers read and written for each of a parameter's


class _Update(NamedTuple):
    """One parameter's."""

    value: np.ndarray
    grad: np.ndarray
    slots: list[np.ndarray]
    factors: tuple[float, float]  # what a step of its own count depends on


def _sgd(
    *values: np.ndarray,
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """p -= rate · v for every parameter, in place."""
    factors = [(0.0, 0.0)] * len(values)
    variant, constants = (momentum > 0, nesterov, weight_decay > 0), (float(rate), momentum, weight_decay)
    _run("sgd", variant, constants, values, grads, slots, factors)


def _adam(
    *values: np.ndarray,
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Adam's or AdamW's step for every parameter, in place."""
    (beta1, beta2), rate, steps = betas, float(rate), round(float(steps))
    counts = [steps - first for first in before]
    factors = [(rate / (1 - beta1**t), (1 - beta2**t) ** 0.5) for t in counts]
    shrink = rate * weight_decay if decoupled else weight_decay
    constants = (beta1, 1 - beta1, beta2, 1 - beta2, eps, shrink)
    _run("adam", (weight_decay > 0, decoupled), constants, values, grads, slots, factors)


def _run(
    name: str,
    variant: tuple[bool, ...],
    constants: tuple[float, ...],
    values: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
    factors: Sequence[tuple[float, float]],
) -> None:
    """One job for all parameters of a dtype."""
    for kept in slots:
        kept[:] = map(dense, kept)
    updates = [
        _Update(value, _like(grad, value), kept, own)
        for value, grad, kept, own in zip(values, grads, slots, factors, strict=True)
        if value.size
    ]
    for dtype, group in _by_dtype(updates):
        table, tasks = _table(group)
        kernel = address("update", name, dtype, machine().lanes(dtype), *variant)
        threads = threads_for(_MOVED * sum(update.value.size for update in group))
        words = map(word, constants)
        run(kernel, tasks, table.buffer_info()[0], len(group), _RUN, *words, threads=threads)


def _table(updates: list[_Update]) -> tuple[array[int], int]:
    """What `kernels.update` reads of each, and how many tasks there are."""
    table, tasks = array("q"), 0
    for value, grad, slots, factors in updates:
        places = [*map(place, slots), 0, 0][:2]
        table.extend((place(value), place(grad), *places, value.size, tasks, *map(word, factors)))
        tasks += -(-value.size // _RUN)
    return table, tasks


def _like(grad: np.ndarray, value: np.ndarray) -> np.ndarray:
    """A gradient as the kernel reads it: one that was set by hand may be of another dtype, or broadcast."""
    if grad.dtype != value.dtype or grad.shape != value.shape:
        grad = np.broadcast_to(grad.astype(value.dtype), value.shape)
    return dense(grad)


def _by_dtype(updates: list[_Update]) -> Iterator[tuple[str, list[_Update]]]:
    groups: dict[str, list[_Update]] = {}
    for update in updates:
        groups.setdefault(dtype_name(update.value.dtype), []).append(update)
    yield from groups.items()


def _declines(*values: np.ndarray, **_: Any) -> str | None:
    if not all(value.flags.c_contiguous and value.flags.aligned for value in values):
        return "updates contiguous parameters only"
    return unsupported(*values)


PRIMITIVES = {"sgd_update": Primitive(_sgd, declines=_declines), "adam_update": Primitive(_adam, declines=_declines)}
