"""A training step that is recorded once and replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xpconv.backend import Array, Backend, backend_of
from xpconv.nn.state import State
from xpconv.runtime import NotRecorded, Runtime, copied
from xpconv.settings import current
from xpconv.train.made_of import Parts
from xpconv.train.optim import Optimizer
from xpconv.train.replayed import Changed, Replayed
from xpconv.train.standing import Trial
from xpconv.train.usual import Measured, Usual


class ReplayedStep(Replayed[Measured]):
    """A step on batches of one shape. The learning rate and the step count are written into arrays before a replay."""

    what = "a step"

    def __init__(self, step: Usual, runtime: Runtime, tell: Callable[[str], None]) -> None:
        super().__init__(step.net, runtime, tell)
        self._step, self._optimizer = step, step.optimizer
        self._states: list[State] = [*step.parameters.values(), *step.net.buffers().values()]

    def usual(self, *given: Array) -> Measured:
        """Take the step call by call."""
        return self._step(*given)

    def parts(self, states: list[State]) -> Parts:
        """Settings, hyperparameters, which parameters learn; all arrays of the network and the optimizer."""
        chosen = [getattr(self._optimizer, field.name) for field in _fields(self._optimizer) if field.name != "lr"]
        learning = [parameter.trainable for parameter in self._step.parameters.values()]
        arrays = [*(state.value for state in states), *self._optimizer.arrays()]
        return [current(), chosen, learning], arrays

    def check(self) -> None:
        """Refuse also a loss of one's own where no recording sees it, and formulas that no engine has."""
        super().check()
        if self.runtime.eager and self._step.objective.own:
            raise NotRecorded("a loss of one's own may compute what no compiled kernel does")
        if not self._optimizer.fused(self._step.parameters):
            kind = type(self._optimizer).__name__
            raise NotRecorded(f"no engine updates these parameters by {kind} with a rate and a count on the device")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Keep what is made while recording, and not computed yet, apart from what was packed before and after.

        The optimizer reads its rate and its count from the device.
        """
        optimizer = self._optimizer
        rate, steps = optimizer.lr, optimizer.steps
        self._dials = dials = _Dials(backend_of(self._states[0].value))
        dials.set(rate, steps)
        try:
            optimizer.lr, optimizer.steps = dials.rate, dials.steps
            self._touch()
            yield
        finally:
            optimizer.lr, optimizer.steps = rate, steps
            self._step.forget()
            self._touch()

    def before(self) -> None:
        """Write the rate and the count, and drop gradients as a step as usual does."""
        self._step.forget()
        self._dials.set(self._optimizer.lr, self._optimizer.steps)

    def after(self) -> None:
        """Count the step, and let nobody use what was packed before it."""
        self._optimizer.steps += 1
        self._touch()

    def kept(self, found: Measured) -> Measured:
        """See `Replayed.kept`."""
        return Measured(copied(found.loss), None if found.right is None else copied(found.right))

    def last(self, *given: Array) -> Measured:
        """See `Replayed.last`: what a replay is compared with, while there is no memory of a recording beside it."""
        self._trial = Trial(self._step, self._states, given)
        return self._trial.measured

    def proof(self, *given: Array) -> tuple[bool, Measured]:
        """Take the last step as usual again, by a replay."""
        if not self._trial.fits():
            raise Changed
        same = self._trial.repeats(self.replay)
        return same, self.replay(*given) if same else self.usual(*given)

    def _touch(self) -> None:
        for state in self._states:
            state.touch()


class _Dials:
    """The learning rate and the step count on the device, in double precision, written to where they have changed."""

    def __init__(self, place: Backend) -> None:
        xp = place.xp
        self.rate, self.steps = (xp.zeros((), dtype=xp.float64, device=place.device) for _ in range(2))
        self.steps += 1  # as the recorded step will: a kernel for it is made now, and not while that is recorded
        self._is: list[Any] = [None, None]

    def set(self, rate: Any, steps: Any) -> None:
        """Write what the next replay is to read, which counts its own step; numbers of the device are copied there."""
        for i, (dial, value) in enumerate(((self.rate, rate), (self.steps, steps))):
            if hasattr(value, "shape") or value != self._is[i]:
                dial[...] = value
            self._is[i] = value
        self._is[1] = None if hasattr(steps, "shape") else steps + 1


def _fields(optimizer: Optimizer) -> tuple[Any, ...]:
    return dataclasses.fields(optimizer) if dataclasses.is_dataclass(optimizer) else ()
