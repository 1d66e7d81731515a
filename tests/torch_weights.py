"""A network, and weights for it as PyTorch has them."""

from __future__ import annotations

import numpy as np

from xpconv import nn


def net():
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, activation="relu"),
        norm=nn.BatchNorm(4),
        flat=nn.Flatten(),
        fc=nn.Linear(None, 5),
    )


def weights(cells=6):
    """A state dict in PyTorch's layouts, with the counter that its batch norms have."""
    shapes = {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "norm.running_mean": (4,),
        "norm.running_var": (4,),
        "fc.weight": (5, 4 * cells),
        "fc.bias": (5,),
    }
    rng = np.random.default_rng(0)
    arrays = {name: 1 + rng.random(shape) for name, shape in shapes.items()}
    return {**arrays, "norm.num_batches_tracked": np.asarray(3)}
