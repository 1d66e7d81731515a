"""What a recording is made of: its settings, options and arrays, to see whether it still is what a call would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.nn import Module
from xpconv.nn.state import State

_OPTIONS = (int, float, complex, str, type(None), Module, State)
Parts = tuple[list[Any], list[Any]]


class MadeOf:
    """What the layers of a network are set to, and what ``parts`` says of its parameters and buffers: choices, and
    arrays, which stay alive here."""

    def __init__(self, net: Module, parts: Callable[[list[State]], Parts]) -> None:
        self._net, self._parts = net, parts
        self._states: list[State] = [*net.parameters().values(), *net.buffers().values()]
        self._chosen, self._arrays = parts(self._states)
        self._latest = Module.latest
        self._options = {id(layer): _options(layer) for layer in net.modules().values()}
        # Lists and dicts change without a word, attributes do not.
        self._loose = [layer for layer in net.modules().values() if _is_loose(layer)]

    def still(self) -> bool:
        """Whether all is as it was: the same choices, and the very same arrays."""
        chosen, arrays = self._parts(self._states)
        if chosen != self._chosen or len(arrays) != len(self._arrays):
            return False
        if any(now is not then for now, then in zip(arrays, self._arrays, strict=True)):
            return False
        if self._latest != Module.latest:  # some attribute was set, somewhere
            self._latest = Module.latest
            return self._options == {id(layer): _options(layer) for layer in self._net.modules().values()}
        return all(_options(layer) == self._options[id(layer)] for layer in self._loose)


def _options(layer: Module) -> dict[str, Any]:
    """What a layer is set to: not arrays or functions, which one of one's own may keep from call to call."""
    return {name: _option(value) for name, value in vars(layer).items() if name != "_settled"}


def _option(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_option, value))
    if isinstance(value, dict):
        return {name: _option(part) for name, part in value.items()}
    return value if isinstance(value, _OPTIONS) else None


def _is_loose(layer: Module) -> bool:
    return any(isinstance(value, (list, dict)) for value in vars(layer).values())
