"""Optimizer updates of all parameters in one job: SGD, Adam and AdamW, by the formulas of `train.optim`.

Where gradients are clipped, two jobs go before it: sums of squares by tasks, which the sizes alone decide, so that any
number of threads gives the same bits; and what these sums leave of each gradient, one number that the update reads.
"""

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
from xpconv.engines.numba.recording import hold
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name

_RUN = 2**15  # numbers of a task
_FACTORS = 2  # words at the end of a parameter's row that depend on its step count
_MOVED = 5  # numbers read and written for each of a parameter's
_WHOLE = np.ones(1)  # the share of gradients that are not clipped


class _Update(NamedTuple):
    """One parameter's."""

    number: int  # among all that are given
    value: np.ndarray
    grad: np.ndarray
    slots: list[np.ndarray]


class _Group(NamedTuple):
    """The parameters of a dtype, and the table of them that kernels read."""

    dtype: str
    updates: list[_Update]
    table: array[int]
    tasks: int

    @property
    def size(self) -> int:
        return sum(update.value.size for update in self.updates)


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
    clip: tuple[float, float] | None,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """p -= rate · v for every parameter, in place."""

    def numbers() -> _Numbers:
        return _Numbers((float(rate), momentum, weight_decay), [(0.0, 0.0)] * len(values))

    _run("sgd", (momentum > 0, nesterov, weight_decay > 0), numbers, values, grads, slots, clip)


def _adam(
    *values: np.ndarray,
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    clip: tuple[float, float] | None,
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

    _run("adam", (weight_decay > 0, decoupled), numbers, values, grads, slots, clip)


def _run(
    name: str,
    variant: tuple[bool, ...],
    numbers: Callable[[], _Numbers],
    values: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    slots: Sequence[list[np.ndarray]],
    clip: tuple[float, float] | None,
) -> None:
    """One job for all parameters of a dtype."""
    for kept in slots:
        kept[:] = map(dense, kept)
    updates = [
        _Update(i, value, _like(grad, value), kept)
        for i, (value, grad, kept) in enumerate(zip(values, grads, slots, strict=True))
        if value.size
    ]
    groups = [_Group(dtype, of_it, *_table(of_it)) for dtype, of_it in _by_dtype(updates)]
    share = _WHOLE if clip is None else _share(groups, clip)
    for group in groups:
        words = functools.partial(_words, group, place(share), numbers)
        kernel = address("update", name, group.dtype, machine().lanes(group.dtype), *variant)
        run(kernel, group.tasks, *words(), threads=threads_for(_MOVED * group.size), fresh=words)


def _share(groups: list[_Group], clip: tuple[float, float]) -> np.ndarray:
    """What counts of each gradient, as `train.clipping` says: one number."""
    most, beside = clip
    share, tasks, lanes = np.empty(1), 0, machine().lanes("float64")
    with borrowed(sum(group.tasks for group in groups) * share.itemsize) as parts:
        for group in groups:
            kernel, to = address("update", "squares", group.dtype, lanes), parts + tasks * share.itemsize
            hold(group.table)
            run(kernel, group.tasks, *_of_table(group), to, threads=threads_for(group.size))
            tasks += group.tasks
        run(address("update", "share"), 1, parts, tasks, word(most), word(beside), place(share))
    return share


def _table(updates: list[_Update]) -> tuple[array[int], int]:
    """What `kernels.update` reads of each, but for the last `_FACTORS` words, and how many tasks there are."""
    table, tasks = array("q"), 0
    for _, value, grad, slots in updates:
        places = [*map(place, slots), 0, 0][:2]
        table.extend((place(value), place(grad), *places, value.size, tasks, *(0,) * _FACTORS))
        tasks += -(-value.size // _RUN)
    return table, tasks


def _of_table(group: _Group) -> tuple[int, int, int]:
    """What all kernels here are given first."""
    return group.table.buffer_info()[0], len(group.updates), _RUN


def _words(group: _Group, share: int, numbers: Callable[[], _Numbers]) -> list[int]:
    """What the kernel is given, by the rate and the count as they are; what depends on them goes into the table."""
    constants, factors = numbers()
    for end, update in enumerate(group.updates, start=1):
        for i, factor in enumerate(factors[update.number]):
            group.table[end * UPDATE_FIELDS - _FACTORS + i] = word(factor)
    return [*_of_table(group), share, *map(word, constants)]


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
