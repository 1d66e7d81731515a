"""Where a network is, for calls that may come often: what is there already passes without a look at the whole tree."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from xpconv.backend import Array, Backend, backend_of, get
from xpconv.nn import Buffer, Module, Parameter
from xpconv.settings import current
from xpconv.train.feed import check_network, images_for


class Owned(NamedTuple):
    """The parameters and buffers of a network by name, as they were when it was looked at."""

    parameters: dict[str, Parameter]
    buffers: dict[str, Buffer]


class _Seen(NamedTuple):
    """What a look has found, and by what it is known to be so still."""

    latest: int
    lists: list[tuple[Module, list[Any]]]
    owned: Owned


class Home:
    """A network's backend and dtype, which its first parameter has."""

    def __init__(self, subject: str, net: Module) -> None:
        check_network(subject, net)
        self._subject, self._net = subject, net
        self._seen: _Seen | None = None

    def owned(self) -> Owned:
        """What the network owns now: the very object of the last look, unless layers may have come or gone."""
        seen, latest = self._seen, Module.latest
        if seen is None or seen.latest != latest or not all(map(_is_so, seen.lists)):
            lists = [(part, held) for part in self._net.modules().values() if (held := part.lists())]
            owned = Owned(self._net.parameters(), self._net.buffers())
            seen = self._seen = _Seen(latest, lists, owned)  # at once, since threads may share a home
        return seen.owned

    def place(self, owned: Owned) -> Backend:
        """Where the network is, or where it will be made."""
        value = _first(owned)
        return get(current().backend) if value is None else backend_of(value)

    def images(self, given: Any, owned: Owned) -> Array:
        """Images of any library as the network takes them."""
        value: Any = _first(owned)
        alike = value is not None and type(given) is type(value)
        if alike and given.dtype == value.dtype and given.device == value.device:
            return given
        column = images_for(self._subject, self._net, given)
        return column.place.asarray(column.array, column.dtype)


def _is_so(seen: tuple[Module, list[Any]]) -> bool:
    """Whether the lists of a module hold what they held: the same objects, some of which may be arrays."""
    now, then = seen[0].lists(), seen[1]
    return len(now) == len(then) and all(map(operator.is_, now, then))


def _first(owned: Owned) -> Array | None:
    return next((parameter.value for parameter in owned.parameters.values()), None)
