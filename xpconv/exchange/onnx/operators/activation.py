"""Activations: elementwise, in whatever order the axes are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import Array, cast, namespace
from xpconv.errors import message
from xpconv.exchange.onnx.table import Node, Order, Refusal, Step, operator
from xpconv.kinds import is_inexact

PLAIN: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": ops.sigmoid,
    "Tanh": ops.tanh,
    "Softplus": ops.softplus,
    "HardSwish": ops.hard_swish,
    "Softsign": lambda x: x / (1 + namespace(x).abs(x)),
    "Mish": lambda x: x * ops.tanh(ops.softplus(x)),
}


@operator(*PLAIN, order=Order.ANY)
def plain(node: Node) -> Any:
    """Those without attributes."""
    return PLAIN[node.op]


@operator("Relu", order=Order.ANY)
def relu(node: Node) -> Any:
    """`ops.relu`; of integers as well."""
    return lambda x: ops.relu(x) if is_inexact(x) else namespace(x).maximum(x, 0 * x)


@operator("LeakyRelu", order=Order.ANY)
def leaky_relu(node: Node) -> Any:
    """`ops.leaky_relu`."""
    slope = node.get("alpha", 0.01)
    return lambda x: ops.leaky_relu(x, slope)


@operator("PRelu", order=Order.ANY)
def prelu(node: Node) -> Any:
    """A slope of any shape that fits x; until version 6 one for each channel."""

    def run(x: Array, slope: Array) -> Array:
        return namespace(x).where(x < 0, slope * x, x)

    def by_channel(x: Array, slope: Array) -> Array:
        return ops.prelu(x, slope)

    return Step(by_channel, Order.LAST) if node.version < 7 else run


@operator("Elu", order=Order.ANY)
def elu(node: Node) -> Any:
    """`ops.elu`."""
    alpha = node.get("alpha", 1.0)
    return lambda x: ops.elu(x, alpha)


@operator("Celu", order=Order.ANY)
def celu(node: Node) -> Any:
    """``max(x, 0) + min(alpha (exp(x / alpha) - 1), 0)``."""
    alpha = node.get("alpha", 1.0)
    return lambda x: alpha * ops.elu(x / alpha)


@operator("Selu", order=Order.ANY)
def selu(node: Node) -> Any:
    """An `ops.elu`, scaled."""
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * ops.elu(x, alpha)


@operator("HardSigmoid", order=Order.ANY)
def hard_sigmoid(node: Node) -> Any:
    """`ops.hard_sigmoid`."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: ops.hard_sigmoid(x, alpha=alpha, beta=beta)


@operator("Gelu", order=Order.ANY)
def gelu(node: Node) -> Any:
    """`ops.gelu`."""
    approximate = node.one_of("approximate", "none", ("none", "tanh"))
    return lambda x: ops.gelu(x, approximate=approximate)


@operator("Swish", order=Order.ANY)
def swish(node: Node) -> Any:
    """``x · sigmoid(alpha x)``, for alpha = 1 `ops.silu`."""
    alpha = node.get("alpha", 1.0)
    return ops.silu if alpha == 1 else lambda x: x * ops.sigmoid(alpha * x)


@operator("ThresholdedRelu", order=Order.ANY)
def thresholded_relu(node: Node) -> Any:
    """x above a threshold, else 0."""
    alpha = node.get("alpha", 1.0)
    return lambda x: namespace(x).where(x > alpha, x, namespace(x).zeros_like(x))


@operator("Shrink", order=Order.ANY)
def shrink(node: Node) -> Any:
    """x drawn towards 0 by a bias outside ``[-lambd, lambd]``, and 0 inside."""
    bias, lambd = node.get("bias", 0.0), node.get("lambd", 0.5)

    def run(x: Array) -> Array:
        xp = namespace(x)
        return xp.where(x < -lambd, x + bias, xp.where(x > lambd, x - bias, xp.zeros_like(x)))

    return run


@operator("Erf", order=Order.ANY)
def erf(node: Node) -> Any:
    """The error function, 2 Φ(√2 x) - 1, with Φ from the exact `ops.gelu` in double precision."""

    def run(x: Array) -> Array:
        xp = namespace(x)
        u = ops.clip(math.sqrt(2) * cast(x, xp.float64), -9.0, 9.0)  # beyond, erf is ±1
        safe = xp.where(u == 0, xp.ones_like(u), u)
        return cast(xp.where(u == 0, 0 * u, 2 * ops.gelu(safe) / safe - 1), x.dtype)

    return run


@operator("Clip", order=Order.ANY, host=(1, 2))
def clip(node: Node) -> Any:
    """`ops.clip`; of integers as well. Until version 10 the bounds are attributes."""
    bounds = (node.get("min"), node.get("max"))

    def run(x: Array, low: Any = None, high: Any = None) -> Array:
        low, high = (b if v is None else v.item() for b, v in zip(bounds, (low, high), strict=True))
        if is_inexact(x):
            return ops.clip(x, low, high)
        xp = namespace(x)
        for bound, cut in ((low, xp.maximum), (high, xp.minimum)):
            x = x if bound is None else cut(x, xp.full_like(x, bound))
        return x

    return run


@operator("Dropout", order=Order.ANY, host=(1, 2))
def dropout(node: Node) -> Any:
    """Inference: x itself, and a mask that drops nothing. In training only a ratio of 0 can be run."""
    node.get("ratio"), node.get("seed")
    masked = sum(map(bool, node.outputs)) > 1
    legacy = node.version < 7 and not node.get("is_test", 0)
    if legacy or not _drops_nothing(node.constant(1) if node.has(1) else _HALF, node.constant(2)):
        raise Refusal("dropout in training, whose mask ONNX does not define")

    def run(x: Array, ratio: Any = _HALF, training: Any = None) -> Any:
        if not _drops_nothing(ratio, training):
            raise ValueError(message("Dropout", "training cannot be run: ONNX does not define the mask."))
        xp = namespace(x)
        return (x, xp.ones_like(x, dtype=x.dtype if node.version < 10 else xp.bool)) if masked else x

    return run


_HALF = np.array(0.5)


def _drops_nothing(ratio: np.ndarray | None, training: np.ndarray | None) -> bool:
    """Whether this is inference, or training with a ratio of 0; what is not known yet (`None`) may be either."""
    return training is None or not training.item() or ratio is None or ratio.item() == 0
