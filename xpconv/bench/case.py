"""A layer by name, and a case: the layer at a batch size, in one direction, with the arrays it is run on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.window import conv_window

Shape = tuple[int, ...]

DIRECTIONS = ("forward", "backward", "step")
CLASSES = 10  # of the networks whose training steps are timed
_ITEM = 4  # bytes of a float32

# Passes over x and over y that an op makes at least: what it reads and writes, forward and backward.
_TRAFFIC = {
    "max_pool": ((1, 1), (1, 1)),
    "global_avg_pool": ((1, 1), (1, 1)),
    "batch_norm": ((1, 1), (2, 1)),  # backward: x and dx, dy
    "softmax_cross_entropy": ((1, 0), (2, 0)),
    "conv": ((1, 1), (2, 1)),
    "linear": ((1, 1), (2, 1)),
}


@dataclass(frozen=True)
class Layer:
    """An op on one shape of image, or a network to be trained by a step.

    ``x`` has no batch axis; ``parameters`` are the op's other arrays, in signature order.
    """

    set: str
    name: str
    op: str
    x: Shape
    parameters: dict[str, Shape] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8


@dataclass(frozen=True)
class Case:
    """What is timed: one direction of a layer at a batch size. ``both`` is forward and backward, for their memory."""

    layer: Layer
    batch: int
    direction: str

    @property
    def name(self) -> str:
        return f"{self.layer.set}: {self.layer.name}, batch {self.batch}, {self.direction}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The op's arrays by name and ``dy``; the same in every process. For a step also the first weights."""
        layer, rng = self.layer, np.random.default_rng(0)
        x = rng.standard_normal((self.batch, *layer.x), dtype="float32")
        if layer.op == "step":
            from xpconv.bench.networks import network

            weights = {name: np.array(value) for name, value in network(layer.options["model"], x).state_dict().items()}
            return {"x": x, "labels": rng.integers(0, CLASSES, self.batch), **weights}
        if layer.op == "softmax_cross_entropy":
            return {"logits": x, "labels": rng.integers(0, layer.x[-1], self.batch), "dy": np.ones((), dtype="float32")}
        drawn = {name: rng.standard_normal(shape, dtype="float32") for name, shape in layer.parameters.items()}
        return {"x": x, **drawn, "dy": rng.standard_normal(self.out, dtype="float32")}

    @property
    def out(self) -> Shape:
        """The shape of y."""
        layer = self.layer
        if layer.op in ("conv", "max_pool"):
            kernel = layer.parameters["w"][:-2] if layer.op == "conv" else (layer.options["kernel_size"],) * 2
            channels = layer.parameters["w"][-1] if layer.op == "conv" else layer.x[-1]
            stride = layer.options.get("stride") or (1 if layer.op == "conv" else layer.options["kernel_size"])
            window = conv_window(layer.op, layer.x[:-1], kernel, stride, layer.options.get("padding", 0))
            return (self.batch, *window.out, channels)
        if layer.op == "linear":
            return (self.batch, *layer.x[:-1], layer.parameters["w"][-1])
        one = (*(1 for _ in layer.x[:-1]), layer.x[-1]) if layer.op == "global_avg_pool" else layer.x
        return (self.batch, *one)

    @property
    def flops(self) -> float | None:
        """Floating-point operations by the definition: two per multiply-add, twice as many backward; else `None`."""
        layer = self.layer
        if layer.op == "step":
            from xpconv.bench.networks import multiply_adds

            return 6.0 * self.batch * multiply_adds(layer.options["model"], layer.x)
        if "w" not in layer.parameters:
            return None
        forward = 2.0 * math.prod(self.out) * math.prod(layer.parameters["w"][:-1])
        return {"forward": 1, "backward": 2, "both": 3}[self.direction] * forward

    @property
    def bytes(self) -> float | None:
        """Bytes that must be read and written at least, each array once; `None` for a step, which keeps what it can."""
        layer = self.layer
        if layer.op == "step":
            return None
        passes_x, passes_y = _TRAFFIC[layer.op][self.direction != "forward"]
        weights = sum(map(math.prod, layer.parameters.values())) * (1 if self.direction == "forward" else 2)
        return float(_ITEM * (passes_x * self.batch * math.prod(layer.x) + passes_y * math.prod(self.out) + weights))
