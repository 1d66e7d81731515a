"""All that a training step changes, as it stands at one moment: to compare two ways to take a step, and to go back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.backend import Array
from xpconv.runtime import copied
from xpconv.train.optimizer import Optimizer, is_array

if TYPE_CHECKING:
    from xpconv.nn import Module
    from xpconv.nn.state import State


class Standing:
    """Copies of arrays of the host, counts of steps and of draws; and what a step has ``found``."""

    def __init__(self, net: Module, states: Sequence[State], optimizer: Optimizer, *found: Array | None) -> None:
        self._states, self._optimizer, self._found = states, optimizer, found
        self._values = [copied(state.value) for state in states if state.value is not None]
        self._slots = list(map(copied, _kept(optimizer)))
        self._steps = None if is_array(optimizer.steps) else optimizer.steps
        self._drawing = [(part, part.draws()) for part in net.modules().values()]

    def restore(self) -> None:
        """Put everything back to where it was, into the same arrays."""
        for state, value in zip(self._states, self._values, strict=True):
            state.advance(value)
        for slot, kept in zip(_kept(self._optimizer), self._slots, strict=True):
            slot[...] = kept
        if self._steps is not None:
            self._optimizer.steps = self._steps
        for part, draws in self._drawing:
            part.restart(draws)

    def same_as(self, other: Standing) -> bool:
        """Whether all is the same, to the bit."""
        return self._bits() == other._bits()

    def _bits(self) -> list[Any]:
        arrays = [np.asarray(x).tobytes() for x in (*self._values, *self._slots, *self._found)]
        return [arrays, self._steps, [draws for _, draws in self._drawing]]


def _kept(optimizer: Optimizer) -> list[Any]:
    """The arrays that an optimizer writes to, beside the parameters."""
    return [*optimizer.arrays(), *([optimizer.steps] if is_array(optimizer.steps) else [])]
