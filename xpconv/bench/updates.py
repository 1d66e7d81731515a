"""An optimizer's update of a network's parameters, by itself: its shapes, its arithmetic in float64, its traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from xpconv.bench import architectures
from xpconv.bench.layer import Layer

LR = 0.01
MOMENTUM = 0.9  # of SGD
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam
UPDATES = 2  # that are judged: the second shows what the first kept

# Arrays of a parameter's size read and written: the value, the gradient, and the moments.
_TRAFFIC = {"SGD": 5, "Adam": 7}


def shapes(layer: Layer) -> list[tuple[int, ...]]:
    """Of the parameters: ResNet-50's convolutions and norms, cut to the layer's ``x`` numbers."""
    found: list[tuple[int, ...]] = []
    for conv in architectures.every_resnet50():
        found += [(conv.kernel, conv.kernel, conv.channels, conv.out), (conv.out,), (conv.out,)]
    counts = np.cumsum([math.prod(shape) for shape in found])
    return found[: int(np.searchsorted(counts, layer.x[0], side="right"))] or found[1:3]


def arrays(layer: Layer) -> dict[str, np.ndarray]:
    """Values ``p0``, ... and gradients ``g0``, ..."""
    rng, sizes = np.random.default_rng(0), list(enumerate(shapes(layer)))
    return {f"{kind}{i}": rng.standard_normal(shape, dtype="float32") for kind in "pg" for i, shape in sizes}


def traffic(layer: Layer) -> int:
    """Numbers that are read and written at least."""
    return _TRAFFIC[layer.options["optimizer"]] * sum(map(math.prod, shapes(layer)))


def truth(layer: Layer, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values after `UPDATES` updates with the same gradients, in float64.

    SGD with momentum as PyTorch defines it; Adam by D. Kingma and J. Ba, arXiv:1412.6980, algorithm 1.
    """
    found = {}
    for i in range(len(shapes(layer))):
        p, g = (given[f"{kind}{i}"].astype("float64") for kind in "pg")
        first, second = np.zeros_like(p), np.zeros_like(p)
        for step in range(1, UPDATES + 1):
            if layer.options["optimizer"] == "SGD":
                first = MOMENTUM * first + g
                p = p - LR * first
                continue
            first = BETAS[0] * first + (1 - BETAS[0]) * g
            second = BETAS[1] * second + (1 - BETAS[1]) * g * g
            corrected = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
            p = p - LR * corrected[0] / (np.sqrt(corrected[1]) + EPS)
        found[f"p{i}"] = p
    return found
