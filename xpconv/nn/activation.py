"""Activations as layers. Convolution and linear layers apply the plain ones themselves: ``activation="relu"``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xpconv import ops
from xpconv.arguments import integer, size_or_open
from xpconv.backend import Array
from xpconv.nn.layer import Bound, Layer, check_arguments
from xpconv.nn.parameter import Parameter
from xpconv.ops import validate


class Plain(Layer):
    """An activation without parameters."""

    op: ClassVar[str]

    def __init__(self) -> None:
        """Make the layer."""

    def bind(self, x: Array, training: bool) -> Bound:
        """The op of that name."""
        return getattr(ops, self.op), (x,), {}


class ReLU(Plain):
    """See `ops.relu`."""

    op = "relu"


class ReLU6(Plain):
    """See `ops.relu6`."""

    op = "relu6"


class SiLU(Plain):
    """See `ops.silu`."""

    op = "silu"


class Sigmoid(Plain):
    """See `ops.sigmoid`."""

    op = "sigmoid"


class Tanh(Plain):
    """See `ops.tanh`."""

    op = "tanh"


class Softplus(Plain):
    """See `ops.softplus`."""

    op = "softplus"


class HardSwish(Plain):
    """See `ops.hard_swish`."""

    op = "hard_swish"


class LeakyReLU(Layer):
    """See `ops.leaky_relu`."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        """Make the layer."""
        check_arguments(ops.leaky_relu, np.empty(0), negative_slope)
        self.negative_slope = negative_slope

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.leaky_relu`."""
        return ops.leaky_relu, (x, self.negative_slope), {}


class PReLU(Layer):
    """A leaky rectifier whose slope is learnt; see `ops.prelu`."""

    def __init__(self, num_parameters: int | None = 1, init: float = 0.25) -> None:
        """Make the layer: one slope for all channels, one for each, or as many as the first input has (`None`)."""
        self.init = validate.number("PReLU", "init", init)
        self.weight = Parameter((size_or_open("PReLU", "num_parameters", num_parameters),), self._draw)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.init, dtype=np.float32)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.prelu`."""
        return ops.prelu, (x, self.weight), {}


class ELU(Layer):
    """See `ops.elu`."""

    def __init__(self, alpha: float = 1.0) -> None:
        """Make the layer."""
        check_arguments(ops.elu, np.empty(0), alpha)
        self.alpha = alpha

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.elu`."""
        return ops.elu, (x, self.alpha), {}


class GELU(Layer):
    """See `ops.gelu`."""

    def __init__(self, approximate: str = "none") -> None:
        """Make the layer."""
        check_arguments(ops.gelu, np.empty(0), approximate=approximate)
        self.approximate = approximate

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.gelu`."""
        return ops.gelu, (x,), {"approximate": self.approximate}


class HardSigmoid(Plain):
    """See `ops.hard_sigmoid`."""

    op = "hard_sigmoid"


class LogSoftmax(Layer):
    """See `ops.log_softmax`."""

    def __init__(self, dim: int = -1) -> None:
        """Make the layer; ``dim`` is the axis along which the exponentials of the results sum to 1: see `Softmax`."""
        self.dim = integer("LogSoftmax", "dim", dim)  # whose range an input will tell

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.log_softmax`."""
        return ops.log_softmax, (x,), {"axis": self.dim}


class Softmax(Layer):
    """See `ops.softmax`."""

    def __init__(self, dim: int = -1) -> None:
        """Make the layer; ``dim`` is the axis along which the results sum to 1: here channels are the last, -1."""
        self.dim = integer("Softmax", "dim", dim)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.softmax`."""
        return ops.softmax, (x,), {"axis": self.dim}
