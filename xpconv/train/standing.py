"""All that a training step changes, as it stands at one moment: to go back there, or to compare two ways to a step.

What is only compared is kept as digests: of a network of many weights, each further copy would cost as much memory as
an optimizer's slots do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.backend import Array
from xpconv.runtime import copied
from xpconv.train.optimizer import Optimizer, is_array

if TYPE_CHECKING:
    from xpconv.nn import Module
    from xpconv.nn.state import State
    from xpconv.train.usual import Measured, Usual


class Standing:
    """Copies of arrays of the host, counts of steps and of draws."""

    def __init__(self, net: Module, states: Sequence[State], optimizer: Optimizer) -> None:
        self._states, self._optimizer = states, optimizer
        self._values = [None if state.value is None else copied(state.value) for state in states]
        self._slots = list(map(copied, _kept(optimizer)))
        self._steps = None if is_array(optimizer.steps) else optimizer.steps
        self._drawing = [(part, part.draws()) for part in net.modules().values()]

    def fits(self) -> bool:
        """Whether all arrays that are there now were there then."""
        there = [value is not None for value in self._values] == [state.value is not None for state in self._states]
        return there and len(self._slots) == len(_kept(self._optimizer))

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


class Trial:
    """A step on a batch, taken once as usual, to be taken again from where it began."""

    def __init__(self, step: Usual, states: Sequence[State], batch: Sequence[Array]) -> None:
        """Take the step; ``measured`` is what it found."""
        self._of = step.net, states, step.optimizer
        self._batch, self._rate = list(map(copied, batch)), _number(step.optimizer.lr)
        self._began = Standing(*self._of)
        self.measured = step(*batch)
        self._came_to = bits(*self._of, *self.measured)

    def fits(self) -> bool:
        """Whether there is nothing now that was not there when the step began."""
        return self._began.fits()

    def repeats(self, take: Callable[..., Measured]) -> bool:
        """Whether another way to take the step comes to the same bits; all stands afterwards as it did before."""
        optimizer, now = self._of[-1], Standing(*self._of)
        rate = optimizer.lr
        try:
            self._began.restore()
            optimizer.lr = self._rate
            return self._came_to == bits(*self._of, *take(*self._batch))
        finally:
            optimizer.lr = rate
            now.restore()


def bits(net: Module, states: Sequence[State], optimizer: Optimizer, *found: Array | None) -> list[Any]:
    """What differs if anything of a standing, or of what a step has ``found``, differs in a bit."""
    arrays = [*(state.value for state in states), *_kept(optimizer), *found]
    counts = [int(optimizer.steps), *(part.draws() for part in net.modules().values())]
    return [counts, *(None if x is None else hashlib.blake2b(np.ascontiguousarray(x).data).digest() for x in arrays)]


def _number(rate: Any) -> Any:
    return copied(rate) if is_array(rate) else rate


def _kept(optimizer: Optimizer) -> list[Any]:
    """The arrays that an optimizer writes to, beside the parameters."""
    return [*optimizer.arrays(), *([optimizer.steps] if is_array(optimizer.steps) else [])]
