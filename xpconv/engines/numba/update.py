"""Optimizer updates of all parameters in one job: SGD, Adam and AdamW, by the formulas of `train.optim`."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import copied, dense, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import UPDATE_FIELDS
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_RUN = 2**15  # numbers of a task
_FACTORS = 2  # words at the end of a parameter's row that depend on its step count
_MOVED = 5  # numbers read and written for each of a parameter's


class _Update(NamedTuple):
    """One parameter's."""

    number: int  # among all that are given
    value: np.ndarray
    grad: np.ndarray
    slots: list[np.ndarray]


class _Numbers(NamedTuple):
    """What depends on the rate and the step count: the kernel's constants, and two factors of each parameter."""

    constants: tuple[float, ...]
    factors: list[tuple[float, float]]


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

    def numbers() -> _Numbers:
        return _Numbers((float(rate), momentum, weight_decay), [(0.0, 0.0)] * len(values))

    _run("sgd", (momentum > 0, nesterov, weight_decay > 0), numbers, values, grads, slots)


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
    beta1, beta2 = betas

    def numbers() -> _Numbers:
        now, taken = float(rate), round(float(steps))
        counts = [taken - first for first in before]
        factors = [(now / (1 - beta1**t), (1 - beta2**t) ** 0.5) for t in counts]
        shrink = now * weight_decay if decoupled else weight_decay
        return _Numbers((beta1, 1 - beta1, beta2, 1 - beta2, eps, shrink), factors)

    _run("adam", (weight_decay > 0, decoupled), numbers, values, grads, slots)


def _run(
    name: str,
    variant: tuple[bool, ...],
    numbers: Callable[[], _Numbers],
    values: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
) -> None:
    """One job for all parameters of a dtype."""
    for kept in slots:
        kept[:] = map(dense, kept)
    updates = [
        _Update(i, value, _like(grad, value), kept)
        for i, (value, grad, kept) in enumerate(zip(values, grads, slots, strict=True))
        if value.size
    ]
    for dtype, group in _by_dtype(updates):
        table, tasks = _table(group)
        words = functools.partial(_words, table, group, numbers)
        kernel = address("update", name, dtype, machine().lanes(dtype), *variant)
        threads = threads_for(_MOVED * sum(update.value.size for update in group))
        run(kernel, tasks, *words(), threads=threads, fresh=words)


def _table(updates: list[_Update]) -> tuple[array[int], int]:
    """What `kernels.update` reads of each, but for the last `_FACTORS` words, and how many tasks there are."""
    table, tasks = array("q"), 0
    for _, value, grad, slots in updates:
        places = [*map(place, slots), 0, 0][:2]
        table.extend((place(value), place(grad), *places, value.size, tasks, *(0,) * _FACTORS))
        tasks += -(-value.size // _RUN)
    return table, tasks


def _words(table: array[int], updates: list[_Update], numbers: Callable[[], _Numbers]) -> list[int]:
    """What the kernel is given, by the rate and the count as they are; what depends on them goes into the table."""
    constants, factors = numbers()
    for end, update in enumerate(updates, start=1):
        for i, factor in enumerate(factors[update.number]):
            table[end * UPDATE_FIELDS - _FACTORS + i] = word(factor)
    return [table.buffer_info()[0], len(updates), _RUN, *map(word, constants)]


def _like(grad: np.ndarray, value: np.ndarray) -> np.ndarray:
    """A gradient as the kernel reads it: one that was set by hand may be of another dtype, or broadcast."""
    if grad.dtype != value.dtype or grad.shape != value.shape:
        grad = np.broadcast_to(copied(grad, value.dtype), value.shape)
    return dense(grad)


def _by_dtype(updates: list[_Update]) -> Iterator[tuple[str, list[_Update]]]:
    groups: dict[str, list[_Update]] = {}
    for update in updates:
        groups.setdefault(dtype_name(update.value.dtype), []).append(update)
    yield from groups.items()


def _declines(*values: np.ndarray, **_: Any) -> str | None:
    return unsupported(*values)


PRIMITIVES = {"sgd_update": Primitive(_sgd, declines=_declines), "adam_update": Primitive(_adam, declines=_declines)}
