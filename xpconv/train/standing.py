"""All that a training step changes, as it stands at one moment: to go back there, or to compare two ways to a step.

What is only compared is kept as digests: of a network of many weights, each further copy would cost as much memory as
an optimizer's slots do.
"""

from __future__ import annotations

import hashlib
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
    """Copies of arrays of the host, counts of steps and of draws."""

    def __init__(self, net: Module, states: Sequence[State], optimizer: Optimizer) -> None:
        self._states, self._optimizer = states, optimizer
        self._values = [None if state.value is None else copied(state.value) for state in states]
        self._slots = list(map(copied, _kept(optimizer)))
        self._steps = None if is_array(optimizer.steps) else optimizer.steps
        self._drawing = [(part, part.draws()) for part in net.modules().values()]

    def restore(self) -> None:
        """Put everything back to where it was, into the same arrays."""
        for state, value in zip(self._states, self._values, strict=True):
            if value is not None:
                state.advance(value)
        for slot, kept in zip(_kept(self._optimizer), self._slots, strict=True):
            slot[...] = kept
        if self._steps is not None:
            self._optimizer.steps = self._steps
        for part, draws in self._drawing:
            part.restart(draws)


def bits(net: Module, states: Sequence[State], optimizer: Optimizer, *found: Array | None) -> list[Any]:
    """What differs if anything of a standing, or of what a step has ``found``, differs in a bit."""
    arrays = [*(state.value for state in states), *_kept(optimizer), *found]
    counts = [int(optimizer.steps), *(part.draws() for part in net.modules().values())]
    return [counts, *(None if x is None else hashlib.blake2b(np.ascontiguousarray(x).data).digest() for x in arrays)]


def _kept(optimizer: Optimizer) -> list[Any]:
    """The arrays that an optimizer writes to, beside the parameters."""
    return [*optimizer.arrays(), *([optimizer.steps] if is_array(optimizer.steps) else [])]
