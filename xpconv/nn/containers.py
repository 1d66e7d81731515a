"""Modules made of modules: one after another, side by side, around a shortcut."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from xpconv import derivatives, dispatch, ops
from xpconv.arguments import integer
from xpconv.backend import Array, namespace
from xpconv.errors import describe, message
from xpconv.nn import fusion
from xpconv.nn.layer import check_activation
from xpconv.nn.module import LayerPullback, Module
from xpconv.runtime import also, made


class _Group(Module):
    """Children by position or by name."""

    def __init__(self, *children: Module, **named: Module) -> None:
        """Take children by position, whose names are 0, 1, ..., or by name, which then are attributes too."""
        if children and named:
            raise TypeError(message(type(self).__name__, "takes its children by position or by name, not both."))
        for name, child in named.items() if named else enumerate(children):
            self._set(str(name), child)

    def _set(self, name: str, child: Any) -> None:
        if not isinstance(child, Module):
            remedy = ""
            if isinstance(child, (list, tuple)):
                remedy = f"unpack the list with *: {type(self).__name__}(*layers)."
            elif isinstance(child, dict):
                remedy = f"unpack the dict with **: {type(self).__name__}(**layers)."
            elif isinstance(child, type) and issubclass(child, Module):
                remedy = f"call the class: {child.__name__}()."
            elif callable(child) and child in dispatch.OPS:
                remedy = f"an op goes in as a layer: {_layer_of(child.__name__)}."
            given = f"given: {child!r}"
            raise TypeError(message(type(self).__name__, f"child {name!r} is no layer.", given, remedy))
        if not name or "." in name or name.startswith("_") or hasattr(type(self), name):
            rule = f"a child cannot be called {name!r}."
            remedy = "a name has no dot, no leading underscore, and is not that of a method."
            raise ValueError(message(type(self).__name__, rule, "", remedy))
        setattr(self, name, child)

    def __len__(self) -> int:
        return len(self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children().values())

    def __getitem__(self, which: int | str | slice) -> Any:
        """The child at a position or of a name; of a slice, a container of the same kind with the same children."""
        if isinstance(which, slice):
            return type(self)(**dict(list(self.children().items())[which]))
        return self.children()[which] if isinstance(which, str) else list(self)[which]

    def __setitem__(self, which: int | str, child: Module) -> None:
        """Put another child in place of one."""
        name = which if isinstance(which, str) else list(self.children())[which]
        self._set(name, child)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The children of now."""
        children = self.children()
        if list(children) == [str(i) for i in range(len(children))]:
            return tuple(children.values()), {}
        return (), children


def _layer_of(op: str) -> str:
    """How the layer that applies an op is made, where it has the op's name."""
    from xpconv import nn  # not loaded yet when this module is

    found = next((name for name in nn.__all__ if name.lower() == op.replace("_", "")), None)
    return f"nn.{found}()" if found else "one of xpconv.nn, or an nn.Layer of your own that binds it"


class Sequential(_Group):
    """Layers one after another, ``Sequential(a, b)`` or ``Sequential(conv1=a, bn1=b)``.

    Below the first layer with something to learn, training keeps nothing and computes no gradient.

    Examples
    --------
    >>> from xpconv import nn
    >>> net = nn.Sequential(conv1=nn.Conv2d(3, 8, 3, activation="relu"), pool1=nn.MaxPool2d(2))
    >>> net.conv1 is net[0], list(net.parameters())
    (True, ['conv1.weight', 'conv1.bias'])
    """

    def __call__(self, x: Any) -> Any:
        """Inference; a convolution takes the norm and the activation behind it into its own pass."""
        for step in fusion.planned(self, lambda: self.children().values()):
            x = step(x)
        return x

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> tuple[Any, LayerPullback]:
        """See `Module.vjp`."""
        y, pullback, _ = _in_turn(list(self), x, training, needs_input)
        return y, pullback


def _in_turn(layers: list[Module], x: Any, training: bool, needs_input: bool) -> tuple[Any, LayerPullback, bool]:
    """Layers one after another, their pullback, and whether a gradient of what they give is of use to anyone."""
    pullbacks, wanted = [], needs_input
    for layer in layers:
        x, back = layer.vjp(x, training=training, needs_input=wanted)
        wanted = wanted or layer.learns()
        if wanted:
            pullbacks.append(back)

    def pullback(dy: Array) -> Array | None:
        for back in reversed(pullbacks):
            dy = back(dy)
        return dy if needs_input else None

    return x, pullback, wanted


def _flattened(layer: Module, x: Any) -> list[Module]:
    """The layers of a sequence, and of sequences in it, whose gates are passed here."""
    if type(layer) is not Sequential or not len(layer):
        return [layer]
    layer._prepare(x)
    return [part for child in layer for part in _flattened(child, x)]


class Residual(Module):
    """``activation(body(x) + shortcut(x))``, where a shortcut of `None` is x itself."""

    def __init__(self, body: Module, shortcut: Module | None = None, activation: str | None = None) -> None:
        """Make the block; ``activation`` is the name of an activation without parameters."""
        check_activation("Residual", activation)
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def __call__(self, x: Array) -> Array:
        """Inference; the convolution that the body ends in takes the sum and the activation into its own pass."""
        side = x if self.shortcut is None else self.shortcut(x)
        *before, last = fusion.planned(self, lambda: _flattened(self.body, x))
        for step in before:
            x = step(x)
        y = last.plus(x, side, self.activation) if isinstance(last, fusion.Stretch) else None
        if y is not None:
            return y
        y = last(x)
        self._check(y, side)
        return ops.add(y, side, activation=self.activation)

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        side: Array = x
        side_back: LayerPullback = _same
        if self.shortcut is not None:
            side, side_back = self.shortcut.vjp(x, training=training, needs_input=needs_input)
        *before, last = _flattened(self.body, x)
        main: Any = x
        first_back: Callable[[Array, Array], Array] = ops.add
        if before and needs_input:
            main, first_back = fusion.beside_vjp(before.pop(0), x, training)
        main, before_back, wanted = _in_turn(before, main, training, needs_input)
        y, last_back = self._end(last, main, side, training, wanted)

        def pullback(dy: Array) -> Array | None:
            dmain, dside = last_back(dy)
            dx_side: Any = side_back(dside)
            dx: Any = before_back(dmain) if wanted else None
            return first_back(dx, dx_side) if needs_input else None

        return y, pullback

    def _end(self, last: Module, main: Array, side: Array, training: bool, wanted: bool) -> tuple[Array, Any]:
        """activation(last(main) + side), and the pullback to main and side."""
        joined = fusion.plus_vjp(last, main, side, self.activation, training, wanted)
        if joined is not None:
            return joined
        out, back = last.vjp(main, training=training, needs_input=wanted)
        self._check(out, side)
        y, add_back = derivatives.vjp(ops.add, out, side, activation=self.activation)

        def pullback(dy: Array) -> tuple[Array | None, Array | None]:
            dout, dside = add_back(dy)
            return back(dout), dside

        return y, pullback

    def _check(self, main: Array, side: Array) -> None:
        if tuple(main.shape) != tuple(side.shape):
            rule = "body and shortcut must give the same shape."
            evidence = f"{describe('body', main)} · {describe('shortcut', side)}"
            raise ValueError(message("Residual", rule, evidence, "give the shortcut a layer: shortcut=nn.Conv2d(...)."))


class Parallel(_Group):
    """Layers side by side on the same input, their outputs joined along the channels, in order."""

    def __call__(self, x: Array) -> Array:
        """Inference."""
        return self._join([layer(x) for layer in self])

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        results = [layer.vjp(x, training=training, needs_input=needs_input) for layer in self]
        y = self._join([part for part, _ in results])
        ends = list(itertools.accumulate(part.shape[-1] for part, _ in results))
        backs = [back for _, back in results]

        def pullback(dy: Array) -> Array | None:
            shares: list[Any] = [back(dy[..., i:j]) for back, i, j in zip(backs, [0, *ends[:-1]], ends, strict=True)]
            return functools.reduce(ops.add, shares) if needs_input else None

        return y, pullback

    def _join(self, parts: list[Array]) -> Array:
        if not parts or any(tuple(part.shape[:-1]) != tuple(parts[0].shape[:-1]) for part in parts):
            given = " · ".join(describe(name, part) for name, part in zip(self.children(), parts, strict=True))
            rule = "the outputs must agree in all axes but the channels."
            spatial = len({(part.shape[0], part.ndim) for part in parts}) == 1 and parts[0].ndim > 2
            halved = (
                "sizes that are halved k times and doubled again must be multiples of 2**k: pad or crop the images."
            )
            raise ValueError(message("Parallel", rule, given, halved if spatial else ""))
        engine = dispatch.offered("concat", *parts)
        return made(lambda: namespace(parts[0]).concat(parts, axis=-1)) if engine is None else engine.run(*parts)


class IdentityShortcut(Module):
    """A shortcut without parameters: every stride-th cell, and zeros for the channels that are not there.

    ``(N, *spatial, C) -> (N, *ceil(spatial / stride), out_channels)``; option A of He et al., arXiv:1512.03385, 2015.
    """

    def __init__(self, out_channels: int, stride: int = 1) -> None:
        """Make the layer."""
        self.out_channels = integer("IdentityShortcut", "out_channels", out_channels, least=1)
        self.stride = integer("IdentityShortcut", "stride", stride, least=1)

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        channels = x.shape[-1]
        if channels > self.out_channels:
            rule = f"x has more channels than the {self.out_channels} of the output."
            raise ValueError(message("IdentityShortcut", rule, describe("x", x)))
        xp, like, shape = namespace(x), {"dtype": x.dtype, "device": x.device}, tuple(x.shape)
        cells = (slice(None), *(slice(None, None, self.stride),) * (x.ndim - 2))
        kept = x[(*cells, slice(None))]
        y = xp.zeros((*kept.shape[:-1], self.out_channels), **like)
        _write(y[..., :channels], kept)

        def pullback(dy: Array) -> Array | None:
            if not needs_input:
                return None
            dx = xp.zeros(shape, **like)
            _write(dx[(*cells, slice(None))], dy[..., :channels])
            return dx

        return y, pullback


def _same(dy: Array) -> Array:
    return dy


def _write(y: Array, x: Array) -> None:
    """Write x to where a part of another array is: by an engine, if one offers it."""
    engine = dispatch.offered("write", y, x)
    if engine is None:
        also(lambda: y.__setitem__(..., x))
    else:
        engine.run(y, x)
