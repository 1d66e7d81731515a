"""Networks as trees: what is below a module, by dotted name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard, cast

from xpconv.nn.parameter import Buffer, Parameter
from xpconv.nn.state import State

if TYPE_CHECKING:
    from xpconv.nn.module import Module

_CHANGES = count(1)


class Tree:
    """What has parameters, buffers and other modules as attributes, or in a list, tuple or dict that is one.

    The part of `Module` that its names follow from.
    """

    latest: ClassVar[int] = 0  # another number after each time that an attribute of any module was set or deleted

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        Tree.latest = next(_CHANGES)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        Tree.latest = next(_CHANGES)

    def lists(self) -> list[Any]:
        """The lists and dicts among the attributes, and what each holds: they change without an attribute being set."""
        found: list[Any] = []
        for value in vars(self).values():
            if isinstance(value, list):
                found += [value, *value]
            elif isinstance(value, dict):
                found += [value, *value, *value.values()]
        return found

    def members(self) -> Iterator[tuple[str, State | Module]]:
        """What this module owns itself, by attribute name; ``name.i`` or ``name.key`` inside a list, tuple or dict."""
        for name, value in vars(self).items():
            if isinstance(value, State) or _is_module(value):
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                    if isinstance(part, State) or _is_module(part):
                        yield f"{name}.{key}", part

    def children(self) -> dict[str, Module]:
        """The modules directly below, by name."""
        return {name: item for name, item in self.members() if _is_module(item)}

    def modules(self) -> dict[str, Module]:
        """This module, under the empty name, and all below it, by dotted name."""
        return {"": cast("Module", self), **{name: item for name, item in self._walk() if _is_module(item)}}

    def parameters(self) -> dict[str, Parameter]:
        """All parameters, by dotted name; a shared one once, under its first name."""
        return {name: item for name, item in self._walk() if isinstance(item, Parameter)}

    def buffers(self) -> dict[str, Buffer]:
        """All buffers, by dotted name."""
        return {name: item for name, item in self._walk() if isinstance(item, Buffer)}

    def _states(self) -> dict[str, State]:
        return {name: item for name, item in self._walk() if isinstance(item, State)}

    def _walk(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, State | Module]]:
        """Everything below, parents before children, each object once."""
        seen = {id(self)} if seen is None else seen
        for name, item in self.members():
            if id(item) not in seen:
                seen.add(id(item))
                yield prefix + name, item
                if _is_module(item):
                    yield from item._walk(f"{prefix}{name}.", seen)


def _is_module(item: object) -> TypeGuard[Module]:
    return isinstance(item, Tree)
