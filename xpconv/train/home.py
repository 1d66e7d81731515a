"""Where a network is, for calls that may come often: what is there already passes without a look at the whole tree."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array, Backend, backend_of, get
from xpconv.nn import Module
from xpconv.settings import current
from xpconv.train.feed import check_network, images_for


class Home:
    """A network's backend and dtype, which its first parameter has."""

    def __init__(self, subject: str, net: Module) -> None:
        check_network(subject, net)
        self._subject, self._net = subject, net
        self._latest: int | None = None

    def place(self) -> Backend:
        """Where the network is, or where it will be made."""
        value = self._value()
        return get(current().backend) if value is None else backend_of(value)

    def images(self, given: Any) -> Array:
        """Images of any library as the network takes them."""
        value: Any = self._value()
        if type(given) is type(value) and given.dtype == value.dtype and given.device == value.device:
            return given
        column = images_for(self._subject, self._net, given)
        return column.place.asarray(column.array, column.dtype)

    def _value(self) -> Array | None:
        if self._latest != Module.latest:  # layers may have come or gone
            self._latest = Module.latest
            self._first = next(iter(self._net.parameters().values()), None)
        return None if self._first is None else self._first.value
