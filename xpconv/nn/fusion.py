"""Layers run together: a convolution takes what follows it into its own pass, with the same answers.

Containers ask `steps` for what to run. A convolution, a batch norm behind it and an activation behind those make one
`Stretch`; at inference the norm's scale and shift are folded into the weights, or in half precision, which would round
those anew, applied to the float32 sums. What is made of them is kept until a parameter or a running statistic changes.
`Residual` gives its sum and activation to the stretch that its body ends in, and on the way
back the shortcut's gradient to the convolution that it begins with. Only layers of this package are joined, not
subclasses, which may do more; nothing is while `summary` watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from xpconv import ops, packing
from xpconv.backend import HALVES, Array, backend_of, cast, namespace
from xpconv.dispatch import registered
from xpconv.errors import dtype_name
from xpconv.nn import activation as activations
from xpconv.nn.conv import Conv, Conv1d, Conv2d, Conv3d
from xpconv.nn.gate import locate, watcher
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm
from xpconv.nn.parameter import Parameter
from xpconv.nn.state import State
from xpconv.nn.tree import Tree
from xpconv.ops.activation import ACTIVATIONS
from xpconv.ops.conv_gradients import scaled
from xpconv.runtime import runtime_of
from xpconv.window import conv_window

_CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
# Layers that a convolution applies itself, by type.
_ACTIVATIONS: dict[type, str] = {
    kind: kind.op
    for kind in vars(activations).values()
    if isinstance(kind, type) and issubclass(kind, activations.Plain) and getattr(kind, "op", None) in ACTIVATIONS
}
_WIDE = ("float32", "float64")


Step = Callable[[Any], Any]
_planned: WeakKeyDictionary[Module, tuple[int, list[Step] | None]] = WeakKeyDictionary()


def planned(owner: Module, layers: Callable[[], Iterable[Module]]) -> list[Step]:
    """The `steps` of layers below a module, kept until an attribute of any module is set.

    A network of small layers spends a tenth of its time on finding them. Lists and dicts change without a word: where
    there are any below, nothing is kept.
    """
    if watcher.get() is not None or type(owner).__hash__ is None:  # which a class with an __eq__ of its own has not
        return steps(layers())
    latest, kept = Tree.latest, _planned.get(owner)
    if kept is None or kept[0] != latest:
        changing = any(part.lists() for part in owner.modules().values())
        _planned[owner] = kept = latest, None if changing else steps(layers())
    return steps(layers()) if kept[1] is None else kept[1]


def steps(layers: Iterable[Module]) -> list[Step]:
    """What to run one after another at inference: the layers, and stretches of those that belong together."""
    left, watch = list(layers), watcher.get()
    found: list[Step] = []
    while left:
        stretch = _stretch(left)
        count = 1 if stretch is None else len(stretch.layers)
        if watch is not None and stretch is not None:
            watch.meet(stretch)
        found += left[:count] if watch is not None or stretch is None else [stretch]
        del left[:count]
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
        y = None if weights is None else self.run(x, weights, self.activation)
        if y is not None:
            return y
        for layer in self.layers:
            x = layer(x)
        return x

    def plus(self, x: Array, side: Array, activation: str | None) -> Array | None:
        """activation(self(x) + side) in one pass, or `None` if that cannot be."""
        if self.activation is not None:
            return None
        self.make(x)
        weights = self.weights(x) if self.fits(x, side) else None
        return None if weights is None else self.run(x, weights, activation, side)

    def make(self, x: Array) -> None:
        """Let the first input make what has no value yet, so that its answer is that of all later calls, to the bit."""
        if all(layer._settled for layer in self.layers):
            return
        states = (state for layer in self.layers for _, state in layer.members() if isinstance(state, State))
        if any(state.value is None for state in states):
            for layer in self.layers:
                x = layer(x)
        else:
            for layer in self.layers:
                layer._prepare(x)  # so that it is settled

    def run(self, x: Array, weights: Weights, activation: str | None, side: Array | None = None) -> Array | None:
        """One pass, or `None` if the convolution's engine does not take half precision's norm into it."""
        op, _, options = self.conv.bind(x, False)
        options |= {"activation": activation, "residual": side}
        w, b, scale = (None if owner is None else owner.value for owner in weights)
        try:
            with packing.offering(tuple([owner for owner in weights if owner is not None])):
                if scale is None:
                    return op(x, w, b, **options)
                return scaled(registered(op).bind(x, w, **options), scale, b)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            locate(error, self.conv)
            raise

    def fits(self, x: Array, side: Array) -> bool:
        """Whether the other summand is like the output of the convolution, which must be able to take x."""
        conv, w = self.conv, self.conv.weight.value
        if w is None or getattr(x, "ndim", None) != w.ndim or getattr(side, "dtype", None) != x.dtype:
            return False
        size, kernel = tuple(x.shape[1:-1]), tuple(w.shape[:-2])
        try:
            window = conv_window("conv", size, kernel, conv.stride, conv.padding, conv.dilation)
        except ValueError as error:
            locate(error, conv)
            raise
        return tuple(side.shape) == (x.shape[0], *window.out, w.shape[-1])

    def weights(self, x: Array) -> Weights | None:
        """What one pass takes; `None` where it would be refused, or not be what the layers give one by one."""
        if not self.takes(x):
            return None
        return Weights(self.conv.weight, self.conv.bias) if self.norm is None else _joined(self.conv, self.norm)

    def joins(self, x: Array) -> bool:
        """Whether there are `weights`; none are made."""
        return self.takes(x) and (self.norm is None or _fit(self.conv, self.norm))

    def takes(self, x: Array) -> bool:
        w: Any = self.conv.weight.value
        if w is None or getattr(x, "ndim", None) != w.ndim:  # the convolution itself says what is wrong
            return False
        return self.norm is None or (x.dtype == w.dtype and dtype_name(x.dtype) in (*_WIDE, *HALVES))


class Weights(NamedTuple):
    """What one pass of a convolution takes: activation(conv(x, weight) · scale + bias)."""

    weight: Parameter
    bias: Parameter | None
    scale: Parameter | None = None  # beside weights of half precision; the bias is float32 then, too


class _Joined(NamedTuple):
    """What was made of a convolution and a norm, of which versions, and in which queue of the device."""

    made_of: tuple[State, ...]
    versions: tuple[int, ...]
    queue: int
    weights: Weights


_kept: WeakKeyDictionary[BatchNorm, _Joined] = WeakKeyDictionary()


def made_for(net: Module) -> list[Any]:
    """What is kept for the norms of a network: whoever holds it may go on reading it, whatever is made anew."""
    return [_kept[layer] for layer in net.modules().values() if isinstance(layer, BatchNorm) and layer in _kept]


def _joined(conv: Conv, norm: BatchNorm) -> Weights | None:
    """The convolution with the norm's running statistics, scale and shift in it, made anew when any of them changed."""
    states = _states(conv, norm)
    made_of = tuple(state for state in states if state is not None)
    versions = tuple(state.version for state in made_of)
    kept, w = _kept.get(norm), conv.weight.value
    queue = runtime_of(backend_of(w)).queue()
    if kept is not None and (kept.versions, kept.queue) == (versions, queue) and all(map(_is, kept.made_of, made_of)):
        return kept.weights
    if w is None or not _fit(conv, norm):
        return None
    half = dtype_name(w.dtype) in HALVES
    scale, shift = _scale_and_shift(norm.eps, namespace(w).float32 if half else w.dtype, *states[1:])
    if half:
        weights = Weights(conv.weight, Parameter(shift), Parameter(scale))
    else:
        weights = Weights(Parameter(w * scale), Parameter(shift))
    _kept[norm] = _Joined(made_of, versions, queue, weights)
    return weights


def _states(conv: Conv, norm: BatchNorm) -> tuple[State | None, ...]:
    return conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var


def _fit(conv: Conv, norm: BatchNorm) -> bool:
    """Whether the norm's values are there, of the convolution's channels and dtype; half precision's statistics not."""
    w, *others = (state for state in _states(conv, norm) if state is not None)
    if any(state.value is None or state.shape != w.shape[-1:] for state in others):
        return False
    alike = others[:-2] if w.dtype in HALVES else others
    return all(state.dtype == w.dtype for state in alike)


def _scale_and_shift(eps: float, dtype: Any, *states: State | None) -> tuple[Array, Array]:
    """What a norm does to sums that lack their bias: of the bias, gamma, beta, mean and variance, in a dtype."""
    values: list[Any] = [None if state is None else cast(state.value, dtype) for state in states]
    b, gamma, beta, mean, var = values
    root = namespace(var).sqrt(var + eps)
    scale = 1 / root if gamma is None else gamma / root
    shift = (-mean if b is None else b - mean) * scale
    return scale, shift if beta is None else shift + beta


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
    if watcher.get() is not None or type(layer) not in _CONVOLUTIONS or dtype_name(x.dtype) not in _WIDE:
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
        plain = layer.activation is None and dtype_name(x.dtype) in _WIDE
        return plain and _alike(x, side)
    stretch = _stretch([layer])
    return stretch is not None and stretch.activation is None and stretch.fits(x, side)
