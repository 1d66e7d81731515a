"""What the tests of recorded training share: a network, data, and a run of both that is watched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn, train

if missing("cupy"):
    pytest.skip(f"cupy: {missing('cupy')}", allow_module_level=True)
import cupy

EMULATED = cupy.__version__.endswith("emulated")
emulated_only = pytest.mark.skipif(not EMULATED, reason="counts are kept by the emulated CuPy alone")


@pytest.fixture(autouse=True)
def same_bits() -> Iterator[None]:
    """For whoever imports it: runs are compared to the bit, which cuDNN repeats where it is told to."""
    with xpconv.deterministic(True):
        yield


class Watch(train.Progress):
    """What was told, and the loss of every step."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.losses: list[float] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int) -> None:
        self.losses.append(self.running.result().loss)


def network(seed: int = 3) -> nn.Sequential:
    """One of everything that changes from step to step: weights, running statistics, a count of dropout masks."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", bias=False),
        nn.BatchNorm(4, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(None, 3),
    )
    return net.initialize(seed=seed)


def data(n: int = 22) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return (rng.standard_normal((3, 6, 6, 1))[labels] + rng.standard_normal((n, 6, 6, 1))).astype("float32"), labels


def trained(capture: bool, net: nn.Module | None = None, **options: Any) -> tuple[Watch, nn.Module, train.Optimizer]:
    """Three epochs in batches of 5, the last of 2: long enough to be recorded, replayed, and interrupted by others."""
    with xpconv.use_backend("cupy"):
        net, watch = network() if net is None else net, Watch()
        optimizer = options.pop("optimizer", None) or train.Adam(1e-2)
        settings = {"epochs": 3, "batch_size": 5, "seed": 1, "progress": watch, "validation": data(4), **options}
        train.fit(net, data(), optimizer=optimizer, capture=capture, **settings)
    return watch, net, optimizer
