"""A case: a layer at a batch size, in one direction, with the arrays it is run on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpconv.bench import networks, updates
from xpconv.bench.layer import Layer, Shape
from xpconv.kinds import PARTS
from xpconv.parity import sample
from xpconv.window import conv_window

DIRECTIONS = ("forward", "fused", "backward", "step")
DTYPES = ("float16", "bfloat16", "float32", "float64", *PARTS)
ACTIVATIONS = ("relu", "silu", "gelu")
_ITEM = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}  # bytes
_DRAWN = 4_194_301  # numbers drawn at most, repeated in larger arrays; prime, so that no two rows or images are equal

# Passes over x and over y that an op makes at least: what it reads and writes, forward and backward.
_TRAFFIC = {
    "max_pool": ((1, 1), (1, 1)),
    "global_avg_pool": ((1, 1), (1, 1)),
    "batch_norm": ((1, 1), (2, 1)),  # backward: x and dx, dy
    "softmax_cross_entropy": ((1, 0), (2, 0)),
    **dict.fromkeys(("resize", "pad"), ((1, 1), (1, 1))),
    **dict.fromkeys((*ACTIVATIONS, "prelu"), ((1, 1), (2, 1))),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "local_response_norm"), ((1, 1), (2, 1))),
    **dict.fromkeys(("conv", "conv_transpose", "linear"), ((1, 1), (2, 1))),
}

# Of ops that treat each spatial axis alike, the length of one in y, by that in x and the options.
_SPATIAL: dict[str, Callable[[int, dict[str, Any]], int]] = {
    "global_avg_pool": lambda n, options: 1,
    "resize": lambda n, options: options["output_size"],
    "pad": lambda n, options: n + 2 * options["padding"],
}


@dataclass(frozen=True)
class Case:
    """What is timed: one direction of a layer at a batch size, in a dtype.

    ``fused`` is a convolution forward with bias and ReLU; ``both`` is forward and backward, for their memory.
    """

    layer: Layer
    batch: int
    direction: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.layer.set}: {self.layer.name}, batch {self.batch}, {self.direction}"

    @property
    def parameters(self) -> dict[str, Shape]:
        """Shapes of the op's arrays but x."""
        bias = {"b": self.layer.parameters["w"][-1:]} if self.direction == "fused" else {}
        return {**self.layer.parameters, **bias}

    @property
    def options(self) -> dict[str, Any]:
        """The op's options."""
        return {**self.layer.options, **({"activation": "relu"} if self.direction == "fused" else {})}

    def arrays(self) -> dict[str, np.ndarray]:
        """The op's arrays by name and ``dy``; the same in every process. Of a network also its weights.

        Values are rounded to the case's dtype; half precision comes in float32, since NumPy lacks bfloat16.
        """
        layer, rng = self.layer, np.random.default_rng(0)
        if layer.op == "update":
            return updates.arrays(layer)
        x = self._drawn(rng, (self.batch, *layer.x))
        if layer.op in ("step", "inference"):
            net = networks.network(layer.options["model"], x)
            weights = {name: np.array(value) for name, value in net.state_dict().items()}
            if layer.op == "inference":
                given, weights = {"x": x}, networks.learned(weights, rng)
            else:
                given = {"x": x, "labels": networks.labels_of(layer.options["model"], x, rng)}
            return given | {name: rounded(value, self.dtype) for name, value in weights.items()}
        if layer.op == "softmax_cross_entropy":
            labels, dy = rng.integers(0, layer.x[-1], self.batch), rounded(np.ones((), "float32"), self.dtype)
            return {"logits": x, "labels": labels, "dy": dy}
        drawn = {name: self._drawn(rng, shape) for name, shape in self.parameters.items()}
        return {"x": x, **drawn, "dy": self._drawn(rng, self.out)}

    def _drawn(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        if self.dtype in PARTS:
            parts = replace(self, dtype=PARTS[self.dtype])._drawn(rng, (*shape, 2))
            return parts.view(self.dtype)[..., 0]
        count = math.prod(shape)
        values = rounded(rng.standard_normal(min(count, _DRAWN), dtype="float32"), self.dtype)
        return (values if count <= _DRAWN else np.resize(values, count)).reshape(shape)

    @property
    def out(self) -> Shape:
        """The shape of y."""
        layer, channels = self.layer, self.layer.x[-1]
        if layer.op in ("conv", "max_pool"):
            kernel = layer.parameters["w"][:-2] if layer.op == "conv" else (layer.options["kernel_size"],) * 2
            channels = layer.parameters["w"][-1] if layer.op == "conv" else channels
            stride = layer.options.get("stride") or (1 if layer.op == "conv" else layer.options["kernel_size"])
            window = conv_window(layer.op, layer.x[:-1], kernel, stride, layer.options.get("padding", 0))
            return (self.batch, *window.out, channels)
        if layer.op == "conv_transpose":  # without padding
            w, stride = layer.parameters["w"], layer.options["stride"]
            return (self.batch, *((n - 1) * stride + k for n, k in zip(layer.x[:-1], w, strict=False)), w[-2])
        if layer.op == "linear":
            return (self.batch, *layer.x[:-1], layer.parameters["w"][-1])
        if layer.op in _SPATIAL:
            return (self.batch, *(_SPATIAL[layer.op](n, layer.options) for n in layer.x[:-1]), channels)
        return (self.batch, *layer.x)

    @property
    def flops(self) -> float | None:
        """Floating-point operations by the definition: two per multiply-add, twice as many backward; else `None`.

        A multiply-add of complex numbers is four of real ones.
        """
        layer = self.layer
        if layer.op in ("step", "inference"):
            each = {"step": 6.0, "inference": 2.0}[layer.op]
            return each * self.batch * networks.multiply_adds(layer.options["model"], layer.x)
        if "w" not in layer.parameters:
            return None
        pixels = (self.batch, *layer.x) if layer.op == "conv_transpose" else self.out  # that meet every weight
        forward = (8.0 if self.dtype in PARTS else 2.0) * math.prod(pixels) * math.prod(layer.parameters["w"][:-1])
        return {"forward": 1, "fused": 1, "backward": 2, "both": 3}[self.direction] * forward

    @property
    def bytes(self) -> float | None:
        """Bytes that must be read and written at least, each array once; `None` of networks, which keep some."""
        layer = self.layer
        item = _ITEM[self.dtype]
        if layer.op == "update":
            return float(_ITEM["float32"] * updates.traffic(layer))
        if layer.op in ("step", "inference"):
            return None
        forward = self.direction in ("forward", "fused")
        passes_x, passes_y = _TRAFFIC[layer.op][not forward]
        weights = sum(map(math.prod, self.parameters.values())) * (1 if forward else 2)
        return float(item * (passes_x * self.batch * math.prod(layer.x) + passes_y * math.prod(self.out) + weights))


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values that ``dtype`` has, in float32, or in float64 for that."""
    return sample.rounded(values, dtype).astype("float64" if dtype == "float64" else "float32")
