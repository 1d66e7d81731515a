"""A network as text: what made each module, and below it what it is made of."""

from __future__ import annotations

from typing import Any

from xpconv.nn.module import Module


def tree(module: Module, shown_before: set[int] | None = None) -> str:
    """The lines of a module and those below; what is below a shared one stands where it is met first."""
    shown_before = set() if shown_before is None else shown_before
    args, kwargs = module._given
    shown = [repr(arg) for arg in args if not _modular(arg)]
    shown += [f"{name}={arg!r}" for name, arg in kwargs.items() if not _modular(arg)]
    lines = [f"{type(module).__name__}({', '.join(shown)})"]
    children = {} if id(module) in shown_before else module.children()
    shown_before.add(id(module))
    for name, child in children.items():
        lines.append(f"{name}: {tree(child, shown_before)}".replace("\n", "\n  "))
    return "\n  ".join(lines)


def _modular(argument: Any) -> bool:
    """Whether an argument is made of modules, which stand on lines of their own."""
    if isinstance(argument, (list, tuple)):
        return any(map(_modular, argument))
    return isinstance(argument, Module)
