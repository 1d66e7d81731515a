"""A network as text: what made each module, and below it what it is made of."""

from __future__ import annotations

from typing import Any

from xpconv.nn.module import Module
from xpconv.nn.parameter import Parameter


def tree(module: Module, shown_before: set[int] | None = None, marked: bool = True) -> str:
    """The lines of a module and those below; what is below a shared one stands where it is met first.

    Where it is to be ``marked``, what does not learn is, the whole of a frozen part once, at its top.
    """
    shown_before = set() if shown_before is None else shown_before
    args, kwargs = module._given
    shown = [repr(arg) for arg in args if not _modular(arg)]
    shown += [f"{name}={arg!r}" for name, arg in kwargs.items() if not _modular(arg)]
    frozen = _frozen(module) if marked else ""
    lines = [f"{type(module).__name__}({', '.join(shown)}){frozen}"]
    children = {} if id(module) in shown_before else module.children()
    shown_before.add(id(module))
    for name, child in children.items():
        lines.append(f"{name}: {tree(child, shown_before, marked and frozen != _ALL)}".replace("\n", "\n  "))
    return "\n  ".join(lines)


_ALL = " (frozen)"


def _frozen(module: Module) -> str:
    """What of a module does not learn: all below it, or those of its own parameters."""
    if module.parameters() and not module.learns():
        return _ALL
    still = [name for name, item in module.members() if isinstance(item, Parameter) and not item.trainable]
    return f" ({', '.join(still)} frozen)" if still else ""


def _modular(argument: Any) -> bool:
    """Whether an argument is made of modules, which stand on lines of their own."""
    if isinstance(argument, (list, tuple)):
        return any(map(_modular, argument))
    return isinstance(argument, Module)
