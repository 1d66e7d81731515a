"""Inference that is recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from xpconv.backend import Array, namespace, to_numpy
from xpconv.nn import Module, fusion
from xpconv.nn.state import State
from xpconv.runtime import NotRecorded, Runtime, copied
from xpconv.settings import current
from xpconv.train.made_of import Parts
from xpconv.train.replayed import Changed, Replayed


class ReplayedForward(Replayed[Array]):
    """A network's answer to batches of one shape; weights that lie packed from before are held."""

    what = "inference"

    def __init__(self, net: Module, runtime: Runtime, tell: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(net, runtime, tell)
        self._states: list[State] = []
        self._since: list[int] = []  # versions of all values when the recording began

    def usual(self, *given: Array) -> Array:
        """Run the network."""
        y = self.net(*given)
        self._gives = type(y).__name__ if not hasattr(y, "shape") else ""
        return y

    def parts(self, states: list[State]) -> Parts:
        """Settings, the device's queue, and the versions of all values, which are what packed ones were made of."""
        return [current(), self.runtime.queue(), [state.version for state in states]], []

    def check(self) -> None:
        """Refuse also what is not one array."""
        super().check()
        if self._gives:
            raise NotRecorded(f"the network returns {self._gives}, not one array")
        self._states = [*self.net.parameters().values(), *self.net.buffers().values()]
        self._since = self._versions()

    def undisturbed(self) -> None:
        """What was packed while recording may be of other values than those that are there now."""
        if self._versions() != self._since:
            raise Changed

    def _versions(self) -> list[int]:
        return [state.version for state in self._states]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Hold what layers that run together have made of their weights."""
        yield
        self._held = fusion.made_for(self.net)

    def kept(self, found: Array) -> Array:
        """See `Replayed.kept`."""
        return copied(found)

    def proof(self, *given: Array) -> tuple[bool, Array]:
        """Compare answers to other images, since the same one may be given again and again.

        Nobody gave those: a layer that refuses them decides on the host, and of overflows in them nobody wants to know.
        """
        (x,) = given
        try:
            with np.errstate(all="ignore"):
                other = 1 - namespace(x).flip(x) / 2
                same = self._agrees(other) or self._agrees(other)  # a write that was under way has its version by now
        except Changed:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise NotRecorded(f"with other images, by which a replay is compared, it raises {told}") from error
        return same, self.usual(x)

    def _agrees(self, x: Array) -> bool:
        before = self._versions()
        same = to_numpy(self.replay(x)).tobytes() == to_numpy(self.usual(x)).tobytes()
        if self._versions() != before:
            raise Changed
        return same
