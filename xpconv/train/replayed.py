"""Work that is recorded once its shapes are known, and replayed: what training steps and inference have in common."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from xpconv.backend import Array, namespace
from xpconv.errors import counted
from xpconv.nn import Module
from xpconv.nn.state import State
from xpconv.runtime import NotRecorded, Recording, Runtime
from xpconv.train.made_of import MadeOf, Parts, hides

T = TypeVar("T")

_WARM_UP = 2  # calls as usual first: kernels are compiled, handles and constants made, state that is kept allocated
_LONGEST = 10  # doublings of the calls as usual between two recordings
_PAID = 64  # replays that a recording, with what proves it, costs at most


class Changed(Exception):  # noqa: N818 - an outcome that callers go on from
    """Another thread has changed the network while it was recorded, or compared with a replay."""


class Replayed(abc.ABC, Generic[T]):
    """Work on arrays of one shape, with calls as usual for others, until one of those has come three times in a row.

    The arrays are copied into those that the recording reads. What the work is made of besides is compared before each
    replay (`MadeOf`): where it has changed, calls are as usual for a while, and the next is recorded anew; that while
    is twice as long after each recording that was not replayed often.

    A runtime that is eager does not see all that is done. There an early replay is compared with a call as usual, to
    the bit; and layers of one's own, which may decide by numbers that this comparison does not meet, are recorded only
    if they say that they can be.
    """

    what = ""  # a call, as messages have it

    def __init__(self, net: Module, runtime: Runtime, tell: Callable[[str], None]) -> None:
        self.net, self.runtime, self._tell = net, runtime, tell
        self.refused = ""  # why there are no replays, once that is known
        self._shapes: Any = None
        self._strays = self._drops = self._wait = self._replays = 0
        self._told = False
        self._trial: Any = None  # what a replay is to be compared with
        self._changed = False  # whether the last recording was let go for what has changed
        self._recording: Recording[T] | None = None

    def __call__(self, *given: Array) -> T:
        """Replay the work, record it, or do it as usual."""
        if self.refused or self.runtime.busy() or not self._has_shape(given):
            return self.usual(*given)
        if not self._wait and not self._made_of.still(self.parts):
            self._drop(changed=True)  # what has changed must run as usual before it is recorded
        if self._wait:
            return self._warm_up(*given)
        if self.replays:
            return self.replay(*given)
        try:
            return self._first(*given) if self._recording is None else self._prove(*given)
        except NotRecorded as reason:
            self._refuse(str(reason))
        except Changed:
            self._drop(changed=True)
        return self.usual(*given)

    @property
    def replays(self) -> bool:
        """Whether a call like the last one would be replayed."""
        return self._recording is not None and self._proven

    @property
    def how(self) -> str:
        """How the next call will be done, in words."""
        if self.refused:
            return f"call by call: {self.refused}"
        if self.replays:
            return "replayed"
        if not self._changed:
            return "call by call so far"
        after = f"after {counted(self._wait, 'call')} more" if self._wait else "at the next call"
        return f"call by call: weights, layers or settings have changed lately; to be recorded again {after}"

    @abc.abstractmethod
    def usual(self, *given: Array) -> T:
        """Do the work call by call."""

    def last(self, *given: Array) -> T:
        """Do the work as usual for the last time before it is recorded by an eager runtime."""
        return self.usual(*given)

    @abc.abstractmethod
    def parts(self, states: list[State]) -> Parts:
        """What the work is made of, beside the layers' options: choices, and arrays that it has the addresses of."""

    @abc.abstractmethod
    def proof(self, *given: Array) -> tuple[bool, T]:
        """Whether a replay comes to the same bits as a call as usual, and what is found of what is given.

        Raises
        ------
        NotRecorded
            If they cannot be compared.
        Changed
            If there is no one network that both are of.
        """

    @abc.abstractmethod
    def kept(self, found: T) -> T:
        """What a replay found, kept from the next one."""

    def aside(self) -> AbstractContextManager[None]:
        """Within the block the work is recorded."""
        return nullcontext()

    def undisturbed(self) -> None:
        """Raise `Changed` if another thread has changed the network since `check`."""

    def before(self) -> None:
        """Write what a replay reads beside what is given."""

    def after(self) -> None:
        """Count what was done."""

    def check(self) -> None:
        """Refuse what would be recorded without an error, and then be wrong.

        Raises
        ------
        NotRecorded
        """
        for name, part in self.net.modules().items():
            layer = _named(name, part)
            if not part.capturable:
                raise NotRecorded(f"{layer} says that it cannot be captured")
            if self.runtime.eager and _undeclared(part):
                raise NotRecorded(f"{layer} does not say that it can (`capturable = True`)")
            if hides(part):
                raise NotRecorded(f"{layer} keeps parameters or layers where parameters() has none")

    def replay(self, *given: Array) -> T:
        """Do the recorded work on what is given."""
        assert self._recording is not None
        self._take(given)
        self.before()
        try:
            self._recording.replay()
        finally:  # Ctrl-C is told of when compiled code is done
            self.after()
            self._replays += 1
        return self.kept(self._recording.result)

    def _has_shape(self, given: tuple[Array, ...]) -> bool:
        """Whether the arrays have the shape that is recorded: not those of an epoch's last, smaller batch."""
        shapes = [(x.shape, x.dtype) for x in given]
        if shapes == self._shapes:
            self._strays = 0
            return True
        self._strays += 1
        if self._shapes is not None and self._strays <= _WARM_UP:
            return False
        self._drop()
        self._wait = max(self._wait, _WARM_UP)
        self._shapes, self._strays = shapes, 0
        return True

    def _drop(self, changed: bool = False) -> None:
        """Let the recording go, and wait before the next one is made."""
        if self._replays >= _PAID:
            self._drops = 1
        self._replays, self._changed = 0, changed
        self._recording = self._trial = None
        self._wait = (1 << min(self._drops, _LONGEST)) >> 1
        self._drops += 1

    def _warm_up(self, *given: Array) -> T:
        last = self._wait == 1
        found = self.last(*given) if last and self.runtime.eager else self.usual(*given)
        if last:
            self._made_of = MadeOf(self.net, self.parts)
        self._wait -= 1
        return found

    def _first(self, *given: Array) -> T:
        """Record the work, and do it."""
        self._recording = self._recorded(*given)
        if not self.runtime.eager:
            return self.replay(*given)
        self.after()
        found = self.kept(self._recording.result)
        if self._recording.burden:
            self._refuse(self._recording.burden)
        return found

    def _recorded(self, *given: Array) -> Recording[T]:
        """Record the work on copies of what is given; only an eager runtime does it by that."""
        self.check()
        # In order of rows, whatever strides the first batch has: some of a layer's views would be copies by NumPy.
        self._inputs = [namespace(x).empty(x.shape, dtype=x.dtype, device=x.device) for x in given]
        with self.aside():
            self._take(given)
            recording = self.runtime.record(lambda: self.usual(*self._inputs))
        self._made_of = MadeOf(self.net, self.parts)
        self.undisturbed()
        self._proven = not self.runtime.eager
        if not (self.runtime.eager or self._told):
            self._told, size = True, given[0].shape[0]
            self._tell(f"{self.runtime.recording}: {self.what} of {size} images is recorded, and replayed from now on")
        return recording

    def _prove(self, *given: Array) -> T:
        """A call as usual beside a replay: they must have come to the same bits, or there are no more replays."""
        self._proven, found = self.proof(*given)
        self._trial = None
        self.runtime.release()
        self._made_of = MadeOf(self.net, self.parts)  # anew, since a layer of one's own may have counted this call
        if not self._proven:
            lacks = f"a replay does not do all that {self.what} does, part of which no op does"
            self._refuse(f"{lacks} (ops.add(x, y), not x + y){self._suspects()}")
        return found

    def _suspects(self) -> str:
        """Which layers may do what no op does: those whose methods are not of this package."""
        own = [_named(name, part) for name, part in self.net.modules().items() if _methods(part)]
        return f": look at {' and '.join(own[:3])}{' and others' * (len(own) > 3)}" if own else ""

    def _take(self, given: tuple[Array, ...]) -> None:
        for mine, x in zip(self._inputs, given, strict=True):
            mine[...] = x

    def _refuse(self, reason: str) -> None:
        self.refused, self._recording, self._trial = reason, None, None
        self._tell(f"no {self.runtime.recording}: {reason}; {self.what} runs call by call")


def _named(name: str, part: Module) -> str:
    return f"the layer {type(part).__name__} {name!r}" if name else f"the network, {type(part).__name__},"


def _undeclared(part: Module) -> bool:
    """Whether a class that is not of this package has methods of its own, and does not say `capturable` itself."""
    return bool(_methods(part)) and not any("capturable" in vars(kind) for kind in _own(part))


def _methods(part: Module) -> set[str]:
    """The methods of a layer, but its constructor, that are not of this package."""
    members = [(name, member) for kind in _own(part) for name, member in vars(kind).items()]
    return {name for name, member in members if callable(member) or hasattr(member, "__get__")} - {"__init__"}


def _own(part: Module) -> list[type]:
    return [kind for kind in type(part).__mro__ if kind.__module__.partition(".")[0] != "xpconv" and kind is not object]
