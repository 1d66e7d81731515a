"""Which layers see flattened images, and of how many channels: what their weights need in another system's order.

Where a system that puts channels first flattens, features come as (channels, cells); here, as (cells, channels). The
number of features is the same, so that no shape tells one from the other; the number of channels says how to go over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xpconv import nn
from xpconv.exchange.architecture import LAYERS
from xpconv.nn import Module
from xpconv.nn.conv import Conv, ConvTranspose


@dataclass(frozen=True)
class _Flow:
    """What reaches a layer; `None`: not known."""

    channels: int | None  # last; of flattened images, those that they had
    flat: bool | None = False
    mixed: bool = False  # of flattened images and others: in one order only where each had a single cell


@dataclass
class Flattened:
    """What was found out about a network, by dotted name of the layer."""

    channels: dict[str, int] = field(default_factory=dict)  # layers that see flattened images of so many channels
    unclear: set[str] = field(default_factory=set)  # layers of which it is not known
    mixed: set[str] = field(default_factory=set)  # of these, those that no number of channels but 1 brings over


def find(net: Module, given: Mapping[str, int]) -> Flattened:
    """Follow the channels through a network; what its layers do not tell is taken from ``given``, by dotted name."""
    walk = _Walk()
    walk.through(net, "", _Flow(None))
    linear = {name for name, module in net.modules().items() if isinstance(module, nn.Linear)}
    told = dict(given)
    unclear = (walk.found.unclear | (linear - walk.seen)) - told.keys()
    return Flattened({**walk.found.channels, **told}, unclear, {n for n in walk.found.mixed if told.get(n, 1) > 1})


class _Walk:
    """On the way through a network: what was found, and which layers were met."""

    def __init__(self) -> None:
        self.found = Flattened()
        self.seen: set[str] = set()
        self.met: dict[int, tuple[str, _Flow]] = {}  # by identity: the first name of a layer, and what it saw there

    def through(self, module: Module, name: str, flow: _Flow) -> _Flow:
        """Note what the layers of a module see, and tell what comes out of it."""
        self.seen.add(name)
        match module:
            case nn.Sequential():
                for key, child in module.children().items():
                    flow = self.through(child, _below(name, key), flow)
                return flow
            case nn.Residual():
                side = flow
                if module.shortcut is not None:
                    side = self.through(module.shortcut, _below(name, "shortcut"), flow)
                main = self.through(module.body, _below(name, "body"), flow)
                if {main.flat, side.flat} == {True, False}:
                    linear = {_below(name, k) for k, part in module.modules().items() if isinstance(part, nn.Linear)}
                    self.found.unclear |= linear
                    self.found.mixed |= linear  # what they give would need the order of what it is added to
                return _sum(main, side)
            case nn.Parallel():
                return _joined([self.through(part, _below(name, key), flow) for key, part in module.children().items()])
        return self.layer(module, self.first_name(module, name, flow), flow)

    def first_name(self, module: Module, name: str, flow: _Flow) -> str:
        """The name that a layer's parameters have; one that stands in several places must see the same in each."""
        first, before = self.met.setdefault(id(module), (name, flow))
        if before.flat != flow.flat or (flow.flat and before != flow):
            self.found.unclear.add(first)
        return first

    def layer(self, module: Module, name: str, flow: _Flow) -> _Flow:
        """What comes out of a layer, which is noted if its parameters depend on what it sees."""
        match module:
            case Conv():
                return _Flow(module.weight.shape[-1])
            case ConvTranspose():
                out = module.weight.shape[-2]
                return _Flow(None if out is None else out * module.groups)
            case nn.Linear():
                self.note(name, flow)
                return _Flow(module.weight.shape[-1])
            case nn.Flatten():
                return flow if flow.flat or flow.flat is None else _Flow(flow.channels, flat=True)
            case nn.IdentityShortcut():
                return _Flow(module.out_channels, flow.flat)
            case nn.PReLU() if module.weight.shape == (1,):
                return flow
            case nn.BatchNorm() | nn.LayerNorm() | nn.PReLU():  # one number for each feature, which stays where it is
                self.note(name, flow)
                return flow
            case nn.GroupNorm() if flow.flat is not False:
                self.found.unclear.add(name)  # its groups would not hold the same features
                self.found.mixed.add(name)
                return flow
        return flow if type(module) in LAYERS.values() else _Flow(None, None)

    def note(self, name: str, flow: _Flow) -> None:
        """A layer with a number, or a row of them, for each feature."""
        if flow.flat and flow.channels is not None:
            self.found.channels[name] = flow.channels
        elif flow.flat is not False:
            self.found.unclear.add(name)
            self.found.mixed |= {name} if flow.mixed else set()


def _below(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _sum(main: _Flow, side: _Flow) -> _Flow:
    """Of images, whose channels agree; flattened ones must have been flattened alike."""
    if main.flat is False and side.flat is False:
        return _Flow(side.channels if main.channels is None else main.channels)
    return main if main == side else _Flow(None, None, _mixes(main, side))


def _mixes(*parts: _Flow) -> bool:
    """Of different parts, whether any is known to be flattened; what is not known may still be images."""
    return any(part.flat or part.mixed for part in parts)


def _joined(parts: list[_Flow]) -> _Flow:
    if any(part.flat is not False for part in parts):
        return _Flow(None, None, _mixes(*parts))
    known: list[Any] = [part.channels for part in parts]
    return _Flow(None if None in known else sum(known))
