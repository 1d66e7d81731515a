"""The linear layer, and what brings arrays into its shape."""

from __future__ import annotations

import math

from xpconv import ops
from xpconv.arguments import integer, size_or_open
from xpconv.backend import Array, namespace
from xpconv.nn import init as inits
from xpconv.nn.layer import Bound, Layer, check_activation
from xpconv.nn.module import LayerPullback, Module
from xpconv.nn.parameter import Parameter


class Linear(Layer):
    """Linear map of the last axis, ``(..., in) -> (..., out)``; see `ops.linear`."""

    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        init: str | None = None,
    ) -> None:
        """Make the layer; its ``weight`` is (in_features, out_features).

        Parameters
        ----------
        in_features : int or None
            Read from the first input where it is `None`.
        out_features : int
        bias : bool
            Whether there is a ``bias`` (out_features,), zero at first.
        activation : str, optional
            Name of an activation without parameters, applied as the sums are stored.
        init : {"he_normal", "he_uniform", "glorot_normal", "glorot_uniform"}, optional
            How the weights are drawn; default: Glorot's before sigmoid and tanh, else He's.
        """
        check_activation("Linear", activation)
        in_features = size_or_open("Linear", "in_features", in_features)
        out_features = integer("Linear", "out_features", out_features, least=1)
        self.activation = activation
        self.weight = Parameter((in_features, out_features), inits.weight_init("Linear", init, activation))
        self.bias = Parameter((out_features,), inits.zeros) if bias else None

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.linear`."""
        return ops.linear, (x, self.weight, self.bias), {"activation": self.activation}

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """One for every weight, at every place of the axes between batch and channels."""
        return math.prod(y_shape[1:]) * x_shape[-1]


class Flatten(Module):
    """All axes but the batch's as one, ``(N, ...) -> (N, product)``, in row-major order: H, W, C."""

    def __init__(self) -> None:
        """Make the layer."""

    def __call__(self, x: Array) -> Array:
        """Inference; x itself in another shape where the library can."""
        return namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        shape = tuple(x.shape)
        return self(x), lambda dy: namespace(dy).reshape(dy, shape) if needs_input else None


class Identity(Module):
    """What comes in goes out: a place to put a layer later."""

    def __init__(self) -> None:
        """Make the layer."""

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        return x, lambda dy: dy if needs_input else None
