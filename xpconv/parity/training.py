"""Whether a network learns the same everywhere: fifty steps from one seed, beside the same steps in float64.

Rounding errors grow as training goes on, so that no fixed bound would do. How fast is found by trial: in float64 runs
of the same training, every step's parameters are moved at random by one unit roundoff of float32, as rounding moves
them. A loss of the target may be as far off as `_MARGIN` times the furthest of those runs up to that step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv import nn, train
from xpconv.backend import use_backend
from xpconv.parity.targets import Target
from xpconv.settings import use_engine

if TYPE_CHECKING:
    from xpconv.nn import Parameter

STEPS = 50
_MARGIN = 8.0  # a step rounds many numbers on its way from parameters to parameters, and the runs are few
_BATCH, _CLASSES, _SHAKEN = 16, 4, 3
_ROUNDOFF = 2.0**-24


class _Losses(train.Progress):
    """The loss of every step."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def on_step(self, epoch: int, step: int) -> None:
        """Take the step's loss out of the mean so far."""
        assert self.running is not None
        before = (step - 1) * float(np.mean(self.all[1 - step :])) if step > 1 else 0.0
        self.all.append(step * self.running.result().loss - before)


class _Shaken(train.SGD):
    """SGD whose parameters are moved by about a unit roundoff after each step, as rounding moves them."""

    seed: int

    def step(self, parameters: Mapping[str, Parameter]) -> None:
        """Update, and shake."""
        super().step(parameters)
        rng = np.random.default_rng((self.seed, int(self.steps)))
        for parameter in parameters.values():
            value: Any = parameter.value
            parameter.assign(value + _ROUNDOFF * np.abs(value).max() * rng.uniform(-1, 1, value.shape))


def disagreement(target: Target) -> float:
    """The largest distance of the target's loss curve from that in float64, in units of what rounding may do."""
    exact, allowed = _reference()
    with use_engine(*target.chain):
        losses = _curve(target.backend, "float32", _optimizer(train.SGD))
    distance = np.abs(losses - exact) / allowed
    return float(np.max(distance)) if np.all(np.isfinite(losses)) else math.inf


@functools.cache
def _reference() -> tuple[np.ndarray, np.ndarray]:
    """Losses in float64, and how far from each a loss in float32 may be."""
    with use_engine("portable"):
        exact = _curve("numpy", "float64", _optimizer(train.SGD))
        furthest = np.zeros(STEPS)
        for seed in range(_SHAKEN):
            shaken = _optimizer(_Shaken)
            shaken.seed = seed
            furthest = np.maximum(furthest, np.abs(_curve("numpy", "float64", shaken) - exact))
    floor = 4 * _ROUNDOFF * np.maximum(np.abs(exact), 1.0)  # of the loss itself, which is rounded too
    return exact, _MARGIN * np.maximum.accumulate(furthest) + floor


def _curve(backend: str, dtype: str, optimizer: train.SGD) -> np.ndarray:
    """Losses of the steps: convolution, batch norm, pooling, dropout and a linear layer on blurred noise."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, _CLASSES, _BATCH * STEPS // 2)
    patterns = rng.standard_normal((_CLASSES, 8, 8, 1))
    images = patterns[labels] + 0.5 * rng.standard_normal((len(labels), 8, 8, 1))
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same", bias=False),
        nn.BatchNorm(8, activation="relu"),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, activation="relu"),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, _CLASSES),
    )
    losses = _Losses()
    with use_backend(backend):
        net.initialize(seed=3).to(dtype=dtype)
        train.fit(net, (images, labels), epochs=2, batch_size=_BATCH, optimizer=optimizer, seed=1, progress=losses)
    return np.asarray(losses.all)


def _optimizer(kind: type[train.SGD]) -> Any:
    return kind(0.05, momentum=0.9, weight_decay=1e-4)
