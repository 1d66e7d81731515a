"""What a recording is made of: its settings, options and arrays, to see whether it still is what a call would do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from xpconv.nn import Module
from xpconv.nn.state import State

_PLAIN = (int, float, complex, str, type(None))
_NO_OPTIONS = ("_settled", "_given")  # of a module: neither says what a call does
Parts = tuple[list[Any], list[Any]]


class MadeOf:
    """What the layers of a network are set to, and what ``parts`` says of its parameters and buffers: choices, and
    arrays, which stay alive here."""

    def __init__(self, net: Module, parts: Callable[[list[State]], Parts]) -> None:
        self._net = net
        self._states: list[State] = [*net.parameters().values(), *net.buffers().values()]
        self._chosen, self._arrays = parts(self._states)
        self._latest = Module.latest
        self._options = {id(layer): _options(layer) for layer in net.modules().values()}
        # What options are made of may change without a word, attributes do not.
        self._loose = [layer for layer in net.modules().values() if any(map(_is_loose, _set(layer).values()))]

    def still(self, parts: Callable[[list[State]], Parts]) -> bool:
        """Whether all is as it was: the same choices, and the very same arrays."""
        chosen, arrays = parts(self._states)
        if chosen != self._chosen or len(arrays) != len(self._arrays):
            return False
        if any(now is not then for now, then in zip(arrays, self._arrays, strict=True)):
            return False
        if self._latest != Module.latest:  # some attribute was set, somewhere
            self._latest = Module.latest
            return self._options == {id(layer): _options(layer) for layer in self._net.modules().values()}
        return all(_options(layer) == self._options[id(layer)] for layer in self._loose)


def hides(layer: Module) -> bool:
    """Whether a layer keeps others, or parameters, so deep in lists that neither a change nor their kind is seen."""
    known = {id(member) for _, member in layer.members()}
    held = (part for value in _set(layer).values() for part in _leaves(value))
    return any(isinstance(part, (Module, State)) and id(part) not in known for part in held)


class _Itself:
    """What is an option as the object that it is, kept alive so that no other gets its place: an array, a function, a
    layer."""

    __slots__ = ("_thing",)

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other._thing is self._thing

    __hash__ = None  # type: ignore[assignment]


def _set(layer: Module) -> dict[str, Any]:
    """The attributes of a layer that say what it does."""
    return {name: value for name, value in vars(layer).items() if name not in _NO_OPTIONS}


def _options(layer: Module) -> dict[str, Any]:
    return {name: _option(value) for name, value in _set(layer).items()}


def _option(value: Any) -> Any:
    """What differs once a value does, or any part of it."""
    if isinstance(value, _PLAIN):
        return value
    parts = _parts(value)
    return _Itself(value) if parts is None else (type(value), {name: _option(part) for name, part in parts.items()})


def _leaves(value: Any) -> Iterator[Any]:
    parts = _parts(value)
    if parts is None:
        yield value
    else:
        for part in parts.values():
            yield from _leaves(part)


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a list, a tuple, a dict or a dataclass is made of, by key; of all else nothing."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Module)):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _is_loose(value: Any) -> bool:
    """Whether a part of a value may change while the value is the same object."""
    parts = _parts(value)
    return parts is not None and (not isinstance(value, tuple) or any(map(_is_loose, parts.values())))
