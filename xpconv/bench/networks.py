"""The networks whose training steps and whose inference are timed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xpconv import nn
from xpconv.backend import use_backend
from xpconv.bench.layer import Layer, Shape
from xpconv.settings import use_engine

CLASSES = {"lenet": 10, "resnet20": 10, "unet": 2, "resnet50": 1000, "mobilenet_v2": 1000}  # of those that are timed
LARGE = ("resnet50", "mobilenet_v2")  # so deep that errors of rounding grow from layer to layer
UNET = {"width": 16, "depth": 3}  # a small one
_OPTIONS: dict[str, dict[str, Any]] = {"unet": UNET, "mobilenet_v2": {"dropout": 0.0}}
MOMENTUM = 0.9
# Learning rates of steps. ResNet-50's first gradients are so large that from 0.01 on right answers part by hundredths.
_RATES = {"resnet50": 0.001}
_JUDGED = 4e11  # operations of the steps that are repeated in float64: seconds on a CPU

# What a network that has learned may have where first weights are zeros and ones, by how names end: least and most.
_LEARNED = {
    "weight": (0.5, 1.5),  # of norms
    "bias": (-0.5, 0.5),
    "running_mean": (-0.5, 0.5),
    "running_var": (0.5, 2.0),
}


def network(model: str, x: Any) -> nn.Sequential:
    """The network with its first weights, as NumPy arrays; without dropout, whose masks no two libraries share."""
    made = _made(model, x.shape[-1])
    net = nn.Sequential(**{k: child for k, child in made.children().items() if not isinstance(child, nn.Dropout)})
    with use_backend("numpy"), use_engine("portable"):
        net.initialize(seed=0)
        net(x[:1].astype("float32"))  # layers that learn their sizes from the first input
    return net


def loaded(model: str, arrays: Mapping[str, np.ndarray]) -> nn.Sequential:
    """The network with a case's values, in float32."""
    net = network(model, arrays["x"])
    net.load_state_dict({name: arrays[name].astype("float32") for name in net.state_dict()})
    return net


def learned(weights: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """First weights with biases, norms and running statistics as of a network that has learned.

    Whoever left one of them out at inference would answer as if nothing were missing, were they zeros and ones.
    """

    def drawn(name: str, value: np.ndarray) -> np.ndarray:
        least, most = _LEARNED[name.rpartition(".")[2]]
        return rng.uniform(least, most, value.shape).astype(value.dtype)

    return {name: drawn(name, value) if value.ndim == 1 else value for name, value in weights.items()}


def rate(model: str) -> float:
    """The learning rate of its steps."""
    return _RATES.get(model, 0.01)


@functools.cache
def multiply_adds(model: str, shape: Shape) -> int:
    """Of one image going forward."""
    return _made(model, shape[-1]).summary(shape).multiply_adds


def _made(model: str, channels: int) -> nn.Sequential:
    make: Callable[..., nn.Sequential] = getattr(nn.models, model)
    return make(num_classes=CLASSES[model], in_channels=channels, **_OPTIONS.get(model, {}))


def labels_of(model: str, x: Any, rng: np.random.Generator) -> np.ndarray:
    """Random labels: one for each image, or of a U-Net for each pixel."""
    return rng.integers(0, CLASSES[model], x.shape[:-1] if model == "unet" else x.shape[:1])


def judged(layer: Layer, batch: int) -> int:
    """How many of the images the steps that are judged are of: all, where float64 on the host is quick enough."""
    each = 6.0 * multiply_adds(layer.options["model"], layer.x)
    return max(2, min(batch, int(_JUDGED / 2 / each)))
