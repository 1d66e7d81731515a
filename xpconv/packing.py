"""What engines keep beside a layer's parameters: weights packed for their kernels, while the values stay as they are.

A `Parameter` has a `Place` that is replaced whenever its version grows. A layer offers its parameters to the ops that
it runs, and to their pullbacks; an engine asks `place_for(w)`. An array that no layer offers has no place, since NumPy
does not say when an array was written to: it is packed afresh each time.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Protocol

from xpconv.backend import Array


class Place(dict[Any, Any]):
    """What was made of one version of a value, by keys of the engines' own; a copy of it is empty."""

    def __reduce__(self) -> tuple[type[Place], tuple[()]]:
        return Place, ()


class Owner(Protocol):
    """What has a value, and a place that is replaced after every change of it."""

    packed: Place

    @property
    def value(self) -> Array | None: ...


_offered: ContextVar[tuple[Owner, ...]] = ContextVar("xpconv.packing", default=())


class offering:  # noqa: N801 - a context manager, cheaper than a generator's
    """Within the block, the values of these owners have a place."""

    __slots__ = ("_owners", "_token")

    def __init__(self, owners: tuple[Owner, ...]) -> None:
        self._owners = owners

    def __enter__(self) -> None:
        self._token: Token[tuple[Owner, ...]] = _offered.set(self._owners)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _offered.reset(self._token)


def place_for(array: Array) -> Place | None:
    """Where to keep what was made of an array, for as long as its values stay as they are; `None`: nowhere.

    Threads may share it: one key holds the same whoever made it, so the last one to store it does no harm.
    """
    for owner in _offered.get():
        # The place is read before the value, which is written before its new place is: an old value that is read
        # beside a new place would be kept there for good.
        place = owner.packed
        if owner.value is array:
            return place
    return None
