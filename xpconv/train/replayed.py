"""A training step that is recorded once and replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xpconv.backend import Array, Backend, backend_of, namespace
from xpconv.nn import Module
from xpconv.nn.state import State
from xpconv.runtime import NotRecorded, Recording, Runtime, copied
from xpconv.settings import current
from xpconv.train.optim import Optimizer
from xpconv.train.standing import Standing, bits
from xpconv.train.step import Measured, Step

_WARM_UP = 2  # steps run as usual first: kernels are compiled, handles and constants made, state that is kept allocated
_RECORDINGS = 4  # after so many, whatever keeps changing the network makes a recording useless
_OPTIONS = (int, float, complex, str, Module, State)  # what a layer may be set to, beside `None` and tuples of such


class Replayed:
    """A step that is recorded once its shapes are known, and from then on replayed for batches of those shapes.

    A batch is copied into the arrays that the recording reads; the learning rate and the step count are written into
    arrays before a replay too. What a step is made of besides (which arrays, settings, hyperparameters, layers and
    options of theirs) is compared before each replay: where it has changed, a step is run as usual, and the next one
    recorded anew.

    A runtime that is eager does not see all that a step does. There the first replay is compared with the step itself,
    to the bit; and layers of one's own, which may decide by numbers that this comparison does not meet, are recorded
    only if they say that they can be.
    """

    def __init__(self, step: Step, runtime: Runtime, tell: Callable[[str], None]) -> None:
        self._step, self._runtime, self._tell = step, runtime, tell
        self._states: list[State] = [*step.parameters.values(), *step.net.buffers().values()]
        self._shapes: Any = None
        self._seen = self._made = 0
        self.refused = ""  # why steps are not replayed, once that is known
        self._made_of: Any = None
        self._recording: Recording[Measured] | None = None

    def __call__(self, x: Array, target: Array) -> Measured:
        """Take one step: replay it, record it, or run it as usual."""
        shapes = (x.shape, x.dtype, target.shape, target.dtype)
        self._shapes = self._shapes or shapes
        if self.refused or shapes != self._shapes:  # as of an epoch's last, smaller batch
            return self._step(x, target)
        if self._recording is not None and not self._is_as_recorded():
            self._recording, self._seen = None, _WARM_UP - 1
        if self._seen < _WARM_UP:
            self._seen += 1
            return self._step(x, target)
        if self._recording is None:
            return self._first(x, target)
        return self._replay(x, target) if self._proven else self._prove(x, target)

    def _first(self, x: Array, target: Array) -> Measured:
        """Record the step, and take it."""
        try:
            self._recording = self._recorded(x, target)
        except NotRecorded as reason:
            self._refuse(str(reason))
            return self._step(x, target)
        if not self._runtime.eager:
            return self._replay(x, target)
        self._step.optimizer.steps += 1
        found = _copy_of(self._recording.result)
        if self._recording.burden:
            self._refuse(self._recording.burden)
        return found

    def _recorded(self, x: Array, target: Array) -> Recording[Measured]:
        """Record the step on copies of a batch; only an eager runtime runs it by that."""
        self._check()
        xp, place = namespace(x), backend_of(x)
        self._inputs, optimizer = (xp.empty_like(x), xp.empty_like(target)), self._step.optimizer
        rate, steps = optimizer.lr, optimizer.steps
        with _on_device(optimizer, place) as self._dials, self._apart():
            self._set(x, target, rate, steps)
            recording = self._runtime.record(lambda: self._step(*self._inputs))
        self._note()
        self._made += 1
        self._proven = not self._runtime.eager
        if self._made == 1 and not self._runtime.eager:
            kind, images = self._runtime.recording, x.shape[0]
            self._tell(f"{kind}: a step of {images} images is recorded, and replayed from now on")
        return recording

    def _prove(self, x: Array, target: Array) -> Measured:
        """Take a step as usual; a replay from where it began must have come to the same bits, or none is made again."""
        changed = self._step.net, self._states, self._step.optimizer
        began = Standing(*changed)
        replayed = bits(*changed, *self._replay(x, target))
        began.restore()
        usual = self._step(x, target)
        self._proven = replayed == bits(*changed, *usual)
        self._note()  # anew, since a layer of one's own may have counted this step
        if not self._proven:
            self._refuse("a replay does not do all that the step does, part of which no compiled kernel can do")
        return usual

    def _check(self) -> None:
        """Refuse what would be recorded without an error, and then be wrong."""
        for name, part in self._step.net.modules().items():
            if not part.capturable:
                raise NotRecorded(f"the layer {type(part).__name__} {name!r} says that its steps cannot be captured")
            if self._runtime.eager and _undeclared(part):
                kind = type(part).__name__
                raise NotRecorded(f"the layer {kind} {name!r} does not say that its steps can (`capturable = True`)")
        if self._runtime.eager and self._step.objective.own:
            raise NotRecorded("a loss of one's own may compute what no compiled kernel does")
        if not self._step.optimizer.fused(self._step.parameters):
            kind = type(self._step.optimizer).__name__
            raise NotRecorded(f"no engine updates these parameters by {kind} with a rate and a count on the device")
        if self._made == _RECORDINGS:
            raise NotRecorded("something changes settings or options, or replaces the network's arrays, too often")

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

    def _note(self) -> None:
        """Keep what the recording is to be compared with."""
        self._made_of = self._ingredients()
        self._latest, self._options = Module.latest, self._options_now()

    def _options_now(self) -> list[dict[str, Any]]:
        """What layers are set to: not arrays or functions, which one of one's own may keep from step to step."""
        layers = map(vars, self._step.net.modules().values())
        return [{k: v for k, v in layer.items() if k != "_settled" and _is_option(v)} for layer in layers]

    def _ingredients(self) -> tuple[list[Any], list[Any]]:
        """All that the recorded step is made of: choices, and arrays, which stay alive in here."""
        optimizer = self._step.optimizer
        chosen = [getattr(optimizer, field.name) for field in _fields(optimizer) if field.name != "lr"]
        learning = [parameter.trainable for parameter in self._step.parameters.values()]
        return [current(), chosen, learning], [*(state.value for state in self._states), *optimizer.arrays()]

    def _is_as_recorded(self) -> bool:
        """Whether the recording is still the step: the same choices, and the very same arrays."""
        (chosen, arrays), (now, there) = self._made_of, self._ingredients()
        if chosen != now or len(arrays) != len(there) or any(a is not b for a, b in zip(arrays, there, strict=True)):
            return False
        if self._latest != Module.latest:  # some attribute was set, somewhere
            self._latest = Module.latest
            return self._options == self._options_now()
        return True

    def _replay(self, x: Array, target: Array) -> Measured:
        assert self._recording is not None
        optimizer = self._step.optimizer
        self._set(x, target, optimizer.lr, optimizer.steps)
        self._recording.replay()
        optimizer.steps += 1
        for state in self._states:
            state.touch()
        return _copy_of(self._recording.result)

    def _set(self, x: Array, target: Array, rate: Any, steps: Any) -> None:
        """Write what the recorded step reads."""
        for mine, given in zip(self._inputs, (x, target), strict=True):
            mine[...] = given
        self._dials.set(rate, steps)

    def _refuse(self, reason: str) -> None:
        self.refused, self._recording = reason, None
        self._tell(f"no {self._runtime.recording}: {reason}; steps run call by call")


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


def _copy_of(found: Measured) -> Measured:
    """What a replay found, kept from the next one."""
    return Measured(copied(found.loss), None if found.right is None else copied(found.right))


def _is_option(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_option, value))
    return value is None or isinstance(value, _OPTIONS)


def _undeclared(part: Module) -> bool:
    """Whether a class that is not of this package has methods of its own, and does not say `capturable` itself."""
    own = [kind for kind in type(part).__mro__ if kind.__module__.partition(".")[0] != "xpconv" and kind is not object]
    members = [(name, member) for kind in own for name, member in vars(kind).items()]
    methods = {name for name, member in members if callable(member) or hasattr(member, "__get__")} - {"__init__"}
    return bool(methods) and not any("capturable" in vars(kind) for kind in own)


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
