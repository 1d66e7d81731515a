"""What a network is made of, as JSON: each layer's name and the arguments of its constructor, never code.

A JSON object stands for one thing, told by its first key: ``{"layer": "Conv2d", "args": [...], "kwargs": {...}}`` a
layer of this package, ``{"own": ...}`` one of the user's, ``{"again": 3}`` the fourth layer of the file once more,
``{"tuple": [...]}`` and ``{"dict": {...}}`` what JSON does not tell from lists and objects.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv import nn
from xpconv.arguments import flags_of
from xpconv.errors import FileError, message
from xpconv.nn import Module

LAYERS: dict[str, type[Module]] = {
    name: kind
    for name in nn.__all__
    if isinstance(kind := getattr(nn, name), type) and issubclass(kind, Module) and kind not in (Module, nn.Layer)
}


def describe(net: Module) -> dict[str, Any]:
    """The network as JSON.

    Raises
    ------
    FileError
        If the arguments of a constructor are not plain values and layers, or do not make the network as it is now.
    """
    met: dict[int, int] = {}
    data = _encode(net, met, type(net).__name__)
    own = {type(module).__name__: type(module) for module in net.modules().values()}
    again = build(data, own, "save")
    difference = _difference(net, again)
    if difference:
        rule = "the network is not what its constructors' arguments make."
        remedy = "a layer of one's own that changes after it is made can say how it is made: override arguments()."
        raise FileError(message("save", rule, difference, remedy))
    return data


def build(data: Any, layers: Mapping[str, type[Module]], source: str) -> Module:
    """The network that JSON tells of, not initialised; ``layers`` holds the user's own classes by name.

    Raises
    ------
    FileError
        If the JSON is not of the form above, a layer's class is not known, or it refuses its arguments; ``source``
        is how the message begins.
    """
    builder = _Builder(layers, source)
    net = builder.make(data)
    if not isinstance(net, Module):
        raise builder.error("the architecture is malformed.", f"it tells of a {type(net).__name__}")
    return net


def _encode(value: Any, met: dict[int, int], where: str) -> Any:
    if isinstance(value, Module):
        return _encode_module(value, met, where)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        parts = [_encode(part, met, where) for part in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(part, met, where) for key, part in value.items()}}
    rule = f"an argument of {where} is a {type(value).__name__}, which the file cannot tell of."
    raise FileError(message("save", rule, f"given: {value!r}", "arguments may be numbers, strings, lists, and layers."))


def _encode_module(module: Module, met: dict[int, int], where: str) -> dict[str, Any]:
    if id(module) in met:
        return {"again": met[id(module)]}
    met[id(module)] = len(met)
    kind = type(module).__name__
    try:
        args, kwargs = module.arguments()
    except TypeError as error:
        rule = f"how {where} was made is not known ({error})."
        raise FileError(message("save", rule, "", "override its arguments().")) from error
    return {
        "layer" if LAYERS.get(kind) is type(module) else "own": kind,
        "args": [_encode(arg, met, f"{where}({i})") for i, arg in enumerate(args)],
        "kwargs": {name: _encode(arg, met, f"{where}({name}=)") for name, arg in kwargs.items()},
    }


@dataclass
class _Builder:
    """Makes what JSON tells of; the layers met so far stand in the order in which `_encode` counted them."""

    layers: Mapping[str, type[Module]]
    source: str
    met: list[Module | None] = field(default_factory=list)

    def make(self, data: Any) -> Any:
        if data is None or isinstance(data, (bool, int, float, str)):
            return data
        if isinstance(data, list):
            return [self.make(part) for part in data]
        match data:
            case {"tuple": list(parts)}:
                return tuple(self.make(part) for part in parts)
            case {"dict": dict(parts)}:
                return {key: self.make(part) for key, part in parts.items()}
            case {"again": int(i)} if 0 <= i < len(self.met) and self.met[i] is not None:
                return self.met[i]
            case {"layer": str(name), "args": list(args), "kwargs": dict(kwargs)}:
                kind = self.known(name, LAYERS)
                return self.layer(kind, args, kwargs, flags_of(kind))
            case {"own": str(name), "args": list(args), "kwargs": dict(kwargs)}:
                return self.layer(self.known(name, self.layers), args, kwargs, {})
        raise self.error("the architecture is malformed.", f"at {str(data)[:80]}")

    def layer(self, kind: type[Module], args: list[Any], kwargs: dict[str, Any], flags: Mapping[str, int]) -> Module:
        place = len(self.met)
        self.met.append(None)  # before what is inside it
        made, named = [self.make(arg) for arg in args], {name: self.make(arg) for name, arg in kwargs.items()}
        for name, at in flags.items():  # layers took 0, 1 and more for them once, and files hold what they were given
            if name in named:
                named[name] = bool(named[name])
            elif at < len(made):
                made[at] = bool(made[at])
        try:
            layer = self.met[place] = kind(*made, **named)
        except (TypeError, ValueError) as error:
            raise self.error(f"{kind.__name__} refuses the arguments that stand for it.", str(error)) from error
        return layer

    def known(self, name: str, layers: Mapping[str, type[Module]]) -> type[Module]:
        if name in layers:
            return layers[name]
        own = f"pass the class: load(path, layers={{{name!r}: {name}}})."
        remedy = "the file is damaged, or of a later version of xpconv." if layers is LAYERS else own
        raise self.error(f"no layer is called {name!r}.", f"known: {', '.join(layers) or 'none of your own'}", remedy)

    def error(self, rule: str, evidence: str, remedy: str = "") -> FileError:
        return FileError(message(self.source, rule, evidence, remedy))


def _difference(net: Module, again: Module) -> str:
    """What tells a network from the one that its arguments make; empty if nothing does."""
    mine, other = net.modules(), again.modules()
    if list(mine) != list(other):
        return f"layers: {', '.join(sorted(mine.keys() ^ other.keys())) or 'in another order'}"
    for name, module in mine.items():
        kind, place = type(module), name or "the network"
        if kind is not type(other[name]):
            return f"{place} is a {kind.__name__}, not a {type(other[name]).__name__}"
        for argument in inspect.signature(kind).parameters:
            now, then = vars(module).get(argument), vars(other[name]).get(argument)
            if _is_plain(now) and now != then:
                return f"{argument} of {place} is {now!r}, not {then!r}"
    states, others = net._states(), again._states()
    if states.keys() != others.keys():
        return f"parameters: {', '.join(sorted(states.keys() ^ others.keys()))}"
    unlike = [name for name, state in others.items() if not state.fits(states[name].shape)]
    return f"{unlike[0]} is {states[unlike[0]].shape}, not {others[unlike[0]].shape}" if unlike else ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
