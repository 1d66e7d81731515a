"""Data, a network, a run and a display for tests of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import nn, train


def blobs(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of 4 x 4 pixels whose brightest corner is their class."""
    rng = np.random.default_rng(seed)
    images, labels = rng.random((n, 4, 4, 1), dtype=np.float32), rng.integers(0, 3, n)
    for image, label in zip(images, labels, strict=True):
        image[2 * (label // 2) :, :, 0][:2, 2 * (label % 2) :][:, :2] += 1
    return images, labels


def small_net(seed: int = 0, **options: Any) -> nn.Sequential:
    conv = nn.Conv2d(1, 4, 3, padding="same", activation="relu", **options)
    return nn.Sequential(conv, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)).initialize(seed)


def fit(net: Any, data: Any, **options: Any) -> train.History:
    return train.fit(net, data, **{"epochs": 2, "batch_size": 16, "progress": False} | options)


class Seen(train.Progress):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, epochs: int, steps: int) -> None:
        self.told.append(("start", epochs, steps))

    def on_step(self, epoch: int, step: int) -> None:
        self.told.append((epoch, step))

    def on_epoch(self, record: train.Epoch) -> None:
        self.told.append(record)

    def on_end(self, history: train.History) -> None:
        self.told.append(("end", history.interrupted))
