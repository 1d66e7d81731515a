"""One training step, and the same step recorded once and replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xpconv.backend import Array, Backend, backend_of, namespace
from xpconv.runtime import NotRecorded, Recording, Runtime
from xpconv.settings import current
from xpconv.train.objective import Objective
from xpconv.train.optim import Optimizer

if TYPE_CHECKING:
    from xpconv.nn import Module, Parameter
    from xpconv.nn.state import State

_WARM_UP = 2  # steps run as usual first: kernels are compiled, handles and constants made, state that is kept allocated
_RECORDINGS = 4  # after so many, whatever keeps changing the network makes a graph useless


class Measured(NamedTuple):
    """What a step found, still on the device: the mean loss, and how many labels got the largest output."""

    loss: Array
    right: Array | None


@dataclass(frozen=True, slots=True)
class Step:
    """Forward, loss, backward, update: nothing in it waits for the device."""

    net: Module
    parameters: dict[str, Parameter]  # gathered once: walking a deep tree takes as long as a small step
    objective: Objective
    optimizer: Optimizer
    labelled: bool

    def __call__(self, x: Array, target: Array) -> Measured:
        """Take one step on a batch."""
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


class Replayed:
    """A step that is recorded once its shapes are known, and from then on replayed for batches of those shapes.

    A batch is copied into the arrays that the recording reads; the learning rate and the step count are written into
    arrays before a replay too. What a step is made of besides (which arrays, settings, hyperparameters) is compared
    before each replay: where it has changed, a step is run as usual, and the next one recorded anew.
    """

    def __init__(self, step: Step, runtime: Runtime, tell: Callable[[str], None]) -> None:
        self._step, self._runtime, self._tell = step, runtime, tell
        self._states: list[State] = [*step.parameters.values(), *step.net.buffers().values()]
        self._shapes: Any = None
        self._seen = self._made = 0
        self._refused = ""
        self._made_of: Any = None
        self._recording: Recording[Measured] | None = None

    def __call__(self, x: Array, target: Array) -> Measured:
        """Take one step: replay it, record it, or run it as usual."""
        shapes = (x.shape, x.dtype, target.shape, target.dtype)
        self._shapes = self._shapes or shapes
        if self._refused or shapes != self._shapes:  # as of an epoch's last, smaller batch
            return self._step(x, target)
        if self._recording is not None and not self._is_as_recorded():
            self._recording, self._seen = None, _WARM_UP - 1
        if self._seen < _WARM_UP:
            self._seen += 1
            return self._step(x, target)
        if self._recording is None:
            try:
                self._recording = self._recorded(x, target)
            except NotRecorded as reason:
                self._refuse(str(reason))
                return self._step(x, target)
        return self._replay(x, target)

    def _recorded(self, x: Array, target: Array) -> Recording[Measured]:
        """Record the step on copies of a batch; nothing of it is run."""
        self._check()
        xp, place = namespace(x), backend_of(x)
        self._inputs = xp.empty_like(x), xp.empty_like(target)
        with _on_device(self._step.optimizer, place) as self._dials, self._apart():
            recording = self._runtime.record(lambda: self._step(*self._inputs))
        self._made_of, self._made = self._ingredients(), self._made + 1
        if self._made == 1:
            self._tell(f"CUDA graph: a step of {x.shape[0]} images is recorded, and replayed from now on")
        return recording

    def _check(self) -> None:
        """Refuse what would be recorded without an error, and then be wrong."""
        stubborn = next((name for name, part in self._step.net.modules().items() if not part.capturable), None)
        if stubborn is not None:
            kind = type(self._step.net.modules()[stubborn]).__name__
            raise NotRecorded(f"the layer {kind} {stubborn!r} says that its steps cannot be captured")
        if not self._step.optimizer.fused(self._step.parameters):
            kind = type(self._step.optimizer).__name__
            raise NotRecorded(f"no engine updates these parameters by {kind} with a rate and a count on the device")
        if self._made == _RECORDINGS:
            raise NotRecorded("something replaces the network's arrays, or changes settings, again and again")

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Keep what is made while recording, and not computed yet, apart from what was packed before and after."""
        for state in self._states:
            state.touch()
        try:
            yield
        finally:
            self._step.forget()
            for state in self._states:
                state.touch()

    def _ingredients(self) -> tuple[list[Any], list[Any]]:
        """All that the recorded step is made of: choices, and arrays, which stay alive in here."""
        optimizer = self._step.optimizer
        chosen = [getattr(optimizer, field.name) for field in _fields(optimizer) if field.name != "lr"]
        learning = [parameter.trainable for parameter in self._step.parameters.values()]
        return [current(), chosen, learning], [*(state.value for state in self._states), *optimizer.arrays()]

    def _is_as_recorded(self) -> bool:
        """Whether the recording is still the step: the same choices, and the very same arrays."""
        (chosen, arrays), (now, there) = self._made_of, self._ingredients()
        return chosen == now and len(arrays) == len(there) and all(a is b for a, b in zip(arrays, there, strict=True))

    def _replay(self, x: Array, target: Array) -> Measured:
        assert self._recording is not None
        for mine, given in zip(self._inputs, (x, target), strict=True):
            mine[...] = given
        optimizer = self._step.optimizer
        self._dials.set(optimizer.lr, optimizer.steps)
        self._recording.replay()
        optimizer.steps += 1
        for state in self._states:
            state.touch()
        loss, right = self._recording.result
        xp = namespace(loss)
        return Measured(xp.asarray(loss, copy=True), None if right is None else xp.asarray(right, copy=True))

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self._tell(f"no CUDA graph: {reason}; steps run call by call")


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


@contextmanager
def _on_device(optimizer: Optimizer, place: Backend) -> Iterator[_Dials]:
    """Within the block the optimizer reads its rate and its count from the device."""
    rate, steps = optimizer.lr, optimizer.steps
    dials = _Dials(place)
    optimizer.lr, optimizer.steps = dials.rate, dials.steps
    try:
        yield dials
    finally:
        optimizer.lr, optimizer.steps = rate, steps


def _fields(optimizer: Optimizer) -> tuple[Any, ...]:
    return dataclasses.fields(optimizer) if dataclasses.is_dataclass(optimizer) else ()
