"""Layers run together: a convolution takes what follows it into its own pass, with the same answers.

Containers ask `steps` for what to run. A convolution, a batch norm behind it and an activation behind those make one
`Stretch`; at inference the norm's scale and shift are folded into the weights, which are kept until a parameter or a
running statistic changes. `Residual` gives its sum and activation to the stretch that its body ends in, and on the way
back the shortcut's gradient to the convolution that it begins with. Only layers of this package are joined, not
subclasses, which may do more; nothing is while `summary` watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from xpconv import ops, packing
from xpconv.backend import Array, backend_of, namespace
from xpconv.errors import dtype_name
from xpconv.nn import activation as activations
from xpconv.nn.conv import Conv, Conv1d, Conv2d, Conv3d
from xpconv.nn.gate import watcher
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm
from xpconv.nn.state import Parameter, State
from xpconv.ops.activation import ACTIVATIONS
from xpconv.runtime import runtime_of
from xpconv.window import conv_window

_CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
# Layers that a convolution applies itself, by type.
_ACTIVATIONS: dict[type, str] = {
    kind: kind.op
    for kind in vars(activations).values()
    if isinstance(kind, type) and issubclass(kind, activations.Plain) and getattr(kind, "op", None) in ACTIVATIONS
}
_FOLDED_IN = ("float32", "float64")  # rounding the folded weights to half precision would cost more than half an ulp


def steps(layers: Iterable[Module]) -> list[Callable[[Any], Any]]:
    """What to run one after another at inference: the layers, and stretches of those that belong together."""
    left = list(layers)
    if watcher.get() is not None:
        return [*left]
    found: list[Callable[[Any], Any]] = []
    while left:
        stretch = _stretch(left)
        found += [*left[:1]] if stretch is None else [stretch]
        del left[: 1 if stretch is None else len(stretch.layers)]
    return found


def _stretch(layers: list[Module]) -> Stretch | None:
    """The stretch that the layers begin with, if they do."""
    conv: Any = layers[0]
    after: list[Any] = layers[1:3]
    if type(conv) not in _CONVOLUTIONS:
        return None
    taken, norm, name = [conv], None, conv.activation
    if name is None and after and type(after[0]) is BatchNorm:
        norm = after.pop(0)
        taken, name = [conv, norm], norm.activation
    if name is None and after and type(after[0]) in _ACTIVATIONS:
        name = _ACTIVATIONS[type(after[0])]
        taken.append(after[0])
    return Stretch(conv, norm, name, tuple(taken))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A convolution, perhaps a batch norm, perhaps an activation."""

    conv: Conv
    norm: BatchNorm | None
    activation: str | None
    layers: tuple[Module, ...]

    def __call__(self, x: Array) -> Array:
        """Run it in one pass if it can be, else layer by layer."""
        self.make(x)
        weights = self.weights(x)
        if weights is None:
            for layer in self.layers:
                x = layer(x)
            return x
        return self.run(x, weights, self.activation)

    def plus(self, x: Array, side: Array, activation: str | None) -> Array | None:
        """activation(self(x) + side) in one pass, or `None` if that cannot be."""
        if self.activation is not None:
            return None
        self.make(x)
        weights = self.weights(x) if self.fits(x, side) else None
        return None if weights is None else self.run(x, weights, activation, side)

    def make(self, x: Array) -> None:
        """Let the first input make what has no value yet, so that its answer is that of all later calls, to the bit."""
        states = (state for layer in self.layers for _, state in layer.members() if isinstance(state, State))
        if any(state.value is None for state in states):
            for layer in self.layers:
                x = layer(x)

    def run(
        self, x: Array, weights: tuple[Parameter, Parameter | None], activation: str | None, side: Array | None = None
    ) -> Array:
        op, _, options = self.conv.bind(x, False)
        w, b = weights
        options |= {"activation": activation, "residual": side}
        with packing.offering((w,) if b is None else (w, b)):
            return op(x, w.value, None if b is None else b.value, **options)

    def fits(self, x: Array, side: Array) -> bool:
        """Whether the other summand is like the output of the convolution, which must be able to take x."""
        conv, w = self.conv, self.conv.weight.value
        if w is None or x.ndim != w.ndim or side.dtype != x.dtype:
            return False
        size, kernel = tuple(x.shape[1:-1]), tuple(w.shape[:-2])
        window = conv_window("conv", size, kernel, conv.stride, conv.padding, conv.dilation)
        return tuple(side.shape) == (x.shape[0], *window.out, w.shape[-1])

    def weights(self, x: Array) -> tuple[Parameter, Parameter | None] | None:
        """Weights and bias for one pass; `None` where there is none, or folding would round them."""
        conv, norm = self.conv, self.norm
        if conv.weight.value is None or (conv.rank is not None and x.ndim != conv.rank + 2):
            return None
        if norm is None:
            return conv.weight, conv.bias
        if dtype_name(x.dtype) not in _FOLDED_IN or x.dtype != conv.weight.value.dtype:
            return None
        return _folded(conv, norm)


class _Folded(NamedTuple):
    """Weights and bias made of a convolution's and a norm's, of which versions, and in which queue of the device."""

    made_of: tuple[State, ...]
    versions: tuple[int, ...]
    queue: int
    pair: tuple[Parameter, Parameter]


_kept: WeakKeyDictionary[BatchNorm, _Folded] = WeakKeyDictionary()


def _folded(conv: Conv, norm: BatchNorm) -> tuple[Parameter, Parameter] | None:
    """The convolution with the norm's running statistics, scale and shift in it, made anew when any of them changed."""
    states = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    made_of = tuple(state for state in states if state is not None)
    versions = tuple(state.version for state in made_of)
    kept, w, channels = _kept.get(norm), conv.weight.value, (conv.weight.shape[-1],)
    queue = runtime_of(backend_of(w)).queue()
    if kept is not None and (kept.versions, kept.queue) == (versions, queue) and all(map(_is, kept.made_of, made_of)):
        return kept.pair
    fit = all(state.value is not None and state.shape == channels for state in made_of[1:])
    if not fit or any(state.value.dtype != w.dtype for state in made_of):  # type: ignore[union-attr]
        return None
    xp = namespace(w)
    values: list[Any] = [None if state is None else state.value for state in states]
    _, b, gamma, beta, mean, var = values
    scale = 1 / xp.sqrt(var + norm.eps) if gamma is None else gamma / xp.sqrt(var + norm.eps)
    shift = (-mean if b is None else b - mean) * scale
    pair = Parameter(w * scale), Parameter(shift if beta is None else shift + beta)
    _kept[norm] = _Folded(made_of, versions, queue, pair)
    return pair


def _is(one: State, other: State) -> bool:
    return one is other


Pullback = Callable[[Array], tuple[Array | None, Array | None]]


def plus_vjp(
    layer: Module, x: Array, side: Array, activation: str | None, training: bool, needs_input: bool
) -> tuple[Array, Pullback] | None:
    """activation(layer(x) + side) with a pullback to x and side, in one pass; `None` if that cannot be."""
    if watcher.get() is None and _takes(layer, x, side):
        return layer.vjp_plus(x, side, activation, training, needs_input)  # type: ignore[attr-defined]
    return None


def beside_vjp(layer: Module, x: Array, training: bool) -> tuple[Any, Callable[[Array, Array], Array]]:
    """layer(x), and ``pullback(dy, beside)``: dx plus a gradient of x from elsewhere, in one pass if that can be."""
    conv: Any = layer
    if watcher.get() is not None or type(layer) not in _CONVOLUTIONS or dtype_name(x.dtype) not in _FOLDED_IN:
        y, alone = layer.vjp(x, training=training, needs_input=True)
        return y, lambda dy, beside: ops.add(alone(dy), beside)
    y, back = conv.vjp_beside(x, training)

    def pullback(dy: Array, beside: Array) -> Array:
        joins = type(beside) is type(x) and _alike(beside, x)
        return back(dy, beside) if joins else ops.add(back(dy), beside)

    return y, pullback


def _alike(x: Array, other: Array) -> bool:
    return tuple(x.shape) == tuple(other.shape) and x.dtype == other.dtype


def _takes(layer: Any, x: Array, side: Array) -> bool:
    """Whether the layer can add a sum like its own output, which no activation of its own follows."""
    if type(layer) is BatchNorm:
        plain = layer.activation is None and dtype_name(x.dtype) in _FOLDED_IN
        return plain and _alike(x, side)
    stretch = _stretch([layer])
    return stretch is not None and stretch.activation is None and stretch.fits(x, side)
