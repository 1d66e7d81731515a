"""The base of layers that apply one op: inference and both gradients follow from saying which op, with what."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from xpconv import derivatives, dispatch, packing
from xpconv.backend import Array
from xpconv.errors import describe, message
from xpconv.nn.module import LayerPullback, Module
from xpconv.nn.parameter import Parameter
from xpconv.nn.state import State, value_of
from xpconv.ops import validate
from xpconv.ops.activation import ACTIVATIONS

_FEW = 4  # channels that images have at most, mostly
ROOMY = 2**30  # cells of an axis that any window fits into, to judge a window's options by before an input is there
Bound = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Layer(Module):
    """A layer that applies one op to its input and its parameters; a subclass writes `bind`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, ops
    >>> class Shift(nn.Layer):
    ...     def __init__(self): self.b = nn.Parameter((None,), nn.init.zeros)
    ...     def bind(self, x, training): return ops.batch_norm, (x, None, self.b), {}
    >>> Shift()(np.array([[1.0], [3.0]])).shape
    (2, 1)
    """

    rank: int | None = None  # spatial axes that the layer is for; `None`: it takes any input

    def bind(self, x: Array, training: bool) -> Bound:
        """The op, its positional arguments, x first, and its options; parameters and buffers stand for their values."""
        rule = "a layer of one op must write bind(x, training), which returns (op, arguments, options)."
        remedy = "one of several ops is an nn.Module, and writes vjp."
        raise NotImplementedError(message(type(self).__name__, rule, self._forward(), remedy))

    def _bound(self, x: Array, training: bool) -> Bound:
        """What `bind` says, if it can be."""
        bound = self.bind(x, training)
        whole = isinstance(bound, tuple) and len(bound) == 3
        if not whole or not callable(bound[0]) or bound[0] not in dispatch.OPS:
            rule = "bind must return (op, arguments, options), the op a function of xpconv.ops."
            evidence = f"it returned {getattr(bound[0], '__name__', bound[0]) if whole else type(bound).__name__}"
            raise TypeError(message(type(self).__name__, rule, evidence))
        return bound

    def open_size(self, x: Array) -> int:
        """The size of axes that were left open, from the first input: its channels."""
        return x.shape[-1]

    def adapt(self, x: Array) -> None:
        """Settle what was left open, unless the op will refuse the input."""
        validate.arrays(type(self).__name__, "fc", x=x)
        self._check_rank(x)
        size = self.open_size(x)
        states = [state for _, state in self.members() if isinstance(state, State)]
        if any(None in state.shape for state in states):
            _warn_if_turned(x)
        for state in states:
            state.settle(size)

    def __call__(self, x: Array) -> Any:
        """Inference."""
        self._check_rank(x)
        op, args, options = self._bound(x, False)
        values = {name: value_of(option) for name, option in options.items()}
        with packing.offering(_parameters(args, options)):
            return self.run(op, [*map(value_of, args)], values)

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Any, LayerPullback]:
        """See `Module.vjp`."""
        y, backward = self._applied(x, training, needs_input, {})
        return y, lambda dy: backward(dy)[0]

    def vjp_plus(
        self, x: Array, side: Array, activation: str | None, training: bool, needs_input: bool
    ) -> tuple[Any, Callable[[Array], tuple[Array | None, Array | None]]]:
        """activation(self(x) + side) in the op's own pass, with a pullback to x and side: for ops with a residual."""
        self._prepare(x)
        y, backward = self._applied(x, training, needs_input, {"residual": side, "activation": activation})

        def pullback(dy: Array) -> tuple[Array | None, Array | None]:
            grads = backward(dy)
            return grads[0], grads[-1]

        return y, pullback

    def vjp_beside(self, x: Array, training: bool) -> tuple[Any, Callable[..., Array | None]]:
        """As `vjp`, and ``pullback(dy, beside)`` adds a gradient of x from elsewhere in the op's own pass: for
        convolutions."""
        self._prepare(x)
        y, backward = self._applied(x, training, True, {})
        return y, lambda dy, *beside: backward(dy, *beside)[0]

    def _applied(
        self, x: Array, training: bool, needs_input: bool, more: dict[str, Any]
    ) -> tuple[Any, dispatch.Pullback]:
        """The op of `bind`, with more options, and its pullback, which adds into the parameters' gradients."""
        self._check_rank(x)
        op, args, options = self._bound(x, training)
        options = {**options, **more}
        owners = _arrays_of(op, args, options)
        side = more.get("residual")
        learning = [owner.trainable if isinstance(owner, Parameter) else False for owner in owners[1:]]
        needs = (needs_input and owners[0] is x, *learning)
        if side is not None:
            needs = (*needs[:-1], True)
        values = {name: value_of(option) for name, option in options.items()}
        parameters = _parameters(args, options)
        versions = [parameter.version for parameter in parameters]
        with packing.offering(parameters):
            y, backward = self.run_vjp(op, [*map(value_of, args)], values, needs)

        def pullback(dy: Array, *beside: Array) -> tuple[Array | None, ...]:
            if [parameter.version for parameter in parameters] != versions:
                raise self._late()
            with packing.offering(parameters):
                grads = backward(dy, *beside)
            for owner, grad in zip(owners, grads, strict=True):
                if isinstance(owner, Parameter) and grad is not None:
                    owner.accumulate(grad, fresh=grad is not dy and grad is not grads[0])
            return grads

        return y, pullback

    def _late(self) -> ValueError:
        rule = "a pullback was called after its parameters had changed, whose old values it needs."
        remedy = "call it before the optimizer's step or an assign; run vjp anew for new values."
        return ValueError(message(type(self).__name__, rule, "", remedy))

    def run(self, op: Callable[..., Any], args: list[Any], options: dict[str, Any]) -> Any:
        """Apply the op to the values of what `bind` gave."""
        return op(*args, **options)

    def run_vjp(
        self, op: Callable[..., Any], args: list[Any], options: dict[str, Any], needs: tuple[bool, ...]
    ) -> tuple[Any, dispatch.Pullback]:
        """Apply the op with its pullback, as `xpconv.vjp` does: its gradients are arrays of their own, or dy itself."""
        return derivatives.vjp(op, *args, needs=needs, **options)

    def _check_rank(self, x: Array) -> None:
        if self.rank is not None and getattr(x, "ndim", self.rank + 2) != self.rank + 2:
            layout = ("(N, W, C)", "(N, H, W, C)", "(N, D, H, W, C)")[self.rank - 1]
            one_short = x.ndim == self.rank + 1
            remedy = "one example becomes a batch with x[None]; one channel, without its axis, needs x[..., None]."
            rule = f"takes x {layout}."
            raise ValueError(message(type(self).__name__, rule, describe("x", x), remedy if one_short else ""))


def _warn_if_turned(x: Array) -> None:
    """Warn of images (N, C, H, W): a layer that reads its channels from the first input takes the width for them."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > _FEW:
        rule = "the images seem to have their channels first, and the last axis is taken for the channels."
        remedy = "exchange.to_nhwc(x) puts them last; a layer that is told its in_channels does not ask."
        warnings.warn(message("nn", rule, describe("x", x), remedy), RuntimeWarning, stacklevel=2)


def check_arguments(op: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Let an op judge options already when a layer is made: it binds them to an empty array, and nothing is run."""
    try:
        dispatch.registered(op).bind(*args, **options)
    except (TypeError, ValueError) as error:
        told, empty = str(error), f"\n  {describe('x', args[0])}"
        if empty not in told:
            raise
        raise type(error)(told.replace(empty, "")) from None  # nobody gave that array


def check_activation(layer: str, name: str | None) -> None:
    """Judge the name of an activation that a layer applies to its sums."""
    if name is not None:
        validate.one_of(layer, "activation", name, ACTIVATIONS)


def _parameters(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Parameter, ...]:
    """What engines may keep packed weights beside."""
    return tuple([a for a in (*args, *options.values()) if isinstance(a, Parameter)])


def _arrays_of(op: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    """What was passed for each array parameter of the op that a pullback has a gradient for."""
    return [args[at] if at < len(args) else options.get(name) for name, at in _places(op, len(args), tuple(options))]


@functools.lru_cache(maxsize=256)
def _places(op: Callable[..., Any], count: int, options: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Names and positions of the array parameters that a pullback has a gradient for."""
    known = dispatch.registered(op)
    entries = known.entries((None,) * count, dict.fromkeys(options))
    return tuple(zip(known.arrays[:entries], known.positions[:entries], strict=True))
