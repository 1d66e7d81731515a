"""What to tell where arrays are to be taken over by name and the names do not fit: how it is done here."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xpconv.errors import message


def check_mapping(subject: str, arrays: object, remedy: str = "") -> None:
    """Raise a `TypeError` for what holds no arrays by name, or those of a PyTorch module."""
    if not isinstance(arrays, Mapping):
        raise TypeError(message(subject, "takes a dict of arrays.", f"given: a {type(arrays).__name__}", remedy))
    if hasattr(arrays, "_metadata"):  # square weights would be taken over as they lie, turned
        rule = "this is the state of a PyTorch module, whose weights have their axes in another order."
        raise TypeError(message(subject, rule, "", "exchange.load_torch(net, state) takes it over."))


def renaming(arrays: Mapping[str, Any], known: Collection[str]) -> str:
    """What makes the names fit: a word too many or too few before them, or a dict around them; or nothing."""
    inner = next((name for name, value in arrays.items() if isinstance(value, Mapping) and value), None)
    if inner is not None:
        return f"pass the dict that {inner!r} holds: weights[{inner!r}]"
    if any(name in known for name in arrays):
        return ""
    for first in _beginnings(arrays):  # such as the "module." of nn.DataParallel
        if any(name.startswith(first) and name.removeprefix(first) in known for name in arrays):
            return f"drop {first!r} from them: {{name.removeprefix({first!r}): x for name, x in weights.items()}}"
    for first in _beginnings(known):
        if any(first + name in known for name in arrays):
            return f"put {first!r} before them: {{{first!r} + name: x for name, x in weights.items()}}"
    return ""


def warn_if_none(
    subject: str, taken: bool, arrays: Mapping[str, Any], known: Collection[str], *, depth: int = 1
) -> None:
    """Warn where no array of those given has a name that is known: ``strict=False`` then takes nothing at all.

    The line that is shown is ``depth`` calls above the caller's own.
    """
    if taken or not known:
        return
    names = f"given: {', '.join(list(arrays)[:3]) or 'nothing'} · wanted: {', '.join(list(known)[:3])}"
    told = message(subject, "nothing was taken over: none of the names is one of this network's.", names)
    remedy = renaming(arrays, known)
    warnings.warn(f"{told}\n  {remedy}" if remedy else told, RuntimeWarning, stacklevel=2 + depth)


def _beginnings(names: Collection[str]) -> Iterator[str]:
    """Every beginning of a name that ends with a dot, once, short ones of each name first."""
    seen = set()
    for name in names:
        parts = name.split(".")
        for n in range(1, len(parts)):
            first = ".".join(parts[:n]) + "."
            if first not in seen:
                seen.add(first)
                yield first
