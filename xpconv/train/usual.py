"""One training step, call by call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xpconv.backend import Array
from xpconv.train.objective import Objective
from xpconv.train.optim import Optimizer

if TYPE_CHECKING:
    from xpconv.nn import Module, Parameter


class Measured(NamedTuple):
    """What a step found, still on the device: the mean loss, and how many labels got the largest output."""

    loss: Array
    right: Array | None


@dataclass(frozen=True, slots=True)
class Usual:
    """Forward, loss, backward, update: nothing in it waits for the device."""

    net: Module
    parameters: dict[str, Parameter]  # gathered once: walking a deep tree takes as long as a small step
    objective: Objective
    optimizer: Optimizer
    labelled: bool

    def __call__(self, x: Array, target: Array) -> Measured:
        """Take one step on a batch."""
        self.optimizer.check()  # while nothing has changed, statistics of a norm neither
        self.forget()  # what calls beside, or a step that was interrupted, have gathered
        outputs, pullback = self.net.vjp(x, needs_input=False)
        loss, slope = self.objective.gradient(outputs, target)
        pullback(slope)
        self.optimizer.step(self.parameters)
        self.forget()
        return Measured(loss, self.objective.right(outputs, target) if self.labelled else None)

    def forget(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None
