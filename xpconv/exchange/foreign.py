"""Arrays of another system on their way into a network: their names, their layouts, one list of all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.arguments import flag
from xpconv.backend import Array, namespace
from xpconv.errors import message, misnamed
from xpconv.nn import Module
from xpconv.nn.names import renaming, warn_if_none
from xpconv.nn.state import Shape, State, shown


@dataclass(frozen=True)
class Layout:
    """How another system holds an array: ours is theirs with its axes permuted.

    Where ``channels`` is given, our first axis runs over flattened images, which they hold channels first.
    """

    axes: tuple[int, ...]
    channels: int | None = None

    def ours(self, theirs: Array) -> Array:
        """Theirs in our order."""
        xp = namespace(theirs)
        return self._swapped(xp.permute_dims(theirs, self.axes), channels_lead=True)

    def theirs(self, ours: Array) -> Array:
        """Ours in their order."""
        swapped = self._swapped(ours, channels_lead=False)
        return namespace(ours).permute_dims(swapped, tuple(map(self.axes.index, range(len(self.axes)))))

    def their_shape(self, ours: Shape) -> Shape:
        """The shape of theirs."""
        return tuple(ours[self.axes.index(i)] for i in range(len(ours)))

    def _swapped(self, x: Array, *, channels_lead: bool) -> Array:
        """Features (channels, cells) as (cells, channels), or the other way round."""
        if self.channels is None:
            return x
        xp, shape = namespace(x), tuple(x.shape)
        cells = shape[0] // self.channels
        two = (self.channels, cells) if channels_lead else (cells, self.channels)
        split = xp.reshape(x, (*two, *shape[1:]))
        return xp.reshape(xp.permute_dims(split, (1, 0, *range(2, len(shape) + 1))), shape)


@dataclass(frozen=True)
class Entry:
    """One array of a network: by which of their names to look for it, and how they hold it."""

    names: tuple[str, ...]  # the first is the one that is written
    state: State
    layout: Layout

    def problem(self, name: str, theirs: Any) -> str:
        """Why an array cannot be the value, or nothing."""
        found, expected = tuple(theirs.shape), self.layout.their_shape(self.state.shape)
        if len(found) != len(expected) or not all(n in (None, m) for n, m in zip(expected, found, strict=True)):
            return f"{name} {found} should be {shown(expected)}"
        channels = self.layout.channels
        if channels is not None and found[self.layout.axes[0]] % channels:
            return f"{name} {found} is not for flattened images of {channels} channels"
        return ""


def array(x: Any) -> Array:
    """What was given, as an array; a tensor without its history: that of a parameter, as models hand them out.

    A dict, which is none, is left to be found among what does not fit.
    """
    if hasattr(x, "detach"):
        return x.detach()
    return x if hasattr(x, "dtype") or isinstance(x, Mapping) else np.asarray(x)


def states(net: Module) -> Iterator[tuple[str, Module, str, State]]:
    """Every array of a network, once: the dotted name of its layer, the layer, the name that it has there, itself."""
    seen: set[int] = set()
    for where, module in net.modules().items():
        for name, item in module.members():
            if isinstance(item, State) and id(item) not in seen:
                seen.add(id(item))
                yield where, module, name, item


def load(
    subject: str, entries: list[Entry], arrays: Mapping[str, Any], strict: bool, other_names: str = ""
) -> tuple[list[str], list[str]]:
    """Take over arrays by name: all of them, or, where anything is wrong, none.

    ``other_names`` is the remedy where not one name agrees.

    Returns
    -------
    missing, unexpected : list of str
    """
    strict = flag(subject, "strict", strict)
    known = [name for entry in entries for name in entry.names]
    taken, missing, problems = [], [], []
    for entry in entries:
        name = next((name for name in entry.names if name in arrays), None)
        if name is None:
            missing.append(entry.names[0])
            continue
        taken.append((name, entry))
        problems.append(entry.problem(name, arrays[name]))
    names = {name for name, _ in taken}
    unexpected = [name for name in arrays if name not in names]
    if strict:
        problems += misnamed(missing, unexpected)
    if any(problems):
        remedy = "strict=False takes what has the right name." if strict else ""
        if strict and any(name.endswith("running_mean") for name in unexpected):
            remedy += " A layer that goes by running statistics there would answer otherwise here."
        remedy = renaming(arrays, known) or (other_names if not taken else "") or remedy
        raise ValueError(
            message(subject, "the weights are not this network's.", "\n  ".join(filter(None, problems)), remedy)
        )
    puts = [entry.state.loading(entry.layout.ours(arrays[name])) for name, entry in taken]
    for put in puts:
        put()
    warn_if_none(subject, bool(taken), arrays, known, depth=2)
    return missing, unexpected
