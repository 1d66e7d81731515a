"""The networks whose training steps are timed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import nn
from xpconv.backend import use_backend
from xpconv.bench.layer import Layer, Shape
from xpconv.settings import use_engine

CLASSES = {"lenet": 10, "resnet20": 10, "resnet50": 1000, "unet": 2}  # of the networks whose training steps are timed
UNET = {"width": 16, "depth": 3}  # a small one
LR, MOMENTUM = 0.01, 0.9
_JUDGED = 4e11  # operations of the steps that are repeated in float64: seconds on a CPU


def network(model: str, x: Any) -> nn.Sequential:
    """The network with its first weights, as NumPy arrays; without dropout, whose masks no two libraries share."""
    made = _made(model, x.shape[-1])
    net = nn.Sequential(**{k: child for k, child in made.children().items() if not isinstance(child, nn.Dropout)})
    with use_backend("numpy"), use_engine("portable"):
        net.initialize(seed=0)
        net(x[:1].astype("float32"))  # layers that learn their sizes from the first input
    return net


@functools.cache
def multiply_adds(model: str, shape: Shape) -> int:
    """Of one image going forward."""
    return _made(model, shape[-1]).summary(shape).multiply_adds


def _made(model: str, channels: int) -> nn.Sequential:
    make: Callable[..., nn.Sequential] = getattr(nn.models, model)
    return make(num_classes=CLASSES[model], in_channels=channels, **(UNET if model == "unet" else {}))


def labels_of(model: str, x: Any, rng: np.random.Generator) -> np.ndarray:
    """Random labels: one for each image, or of a U-Net for each pixel."""
    return rng.integers(0, CLASSES[model], x.shape[:-1] if model == "unet" else x.shape[:1])


def judged(layer: Layer, batch: int) -> int:
    """How many of the images the steps that are judged are of: all, where float64 on the host is quick enough."""
    each = 6.0 * multiply_adds(layer.options["model"], layer.x)
    return max(2, min(batch, int(_JUDGED / 2 / each)))
