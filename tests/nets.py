"""Networks that several tests use, and the backends that they run on."""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn

# What `xpconv train` writes.
PICTURES = {"curves.png", "filters.png", "mistakes.png"}
RUN_FILES = {"model.safetensors", "history.jsonl", "checkpoint.safetensors", *PICTURES}

BACKENDS = ["numpy", "array_api_strict", "array_api_strict:device1", "torch", "cupy"]


def on(backend: str):
    """`use_backend`, or a skip that names what is missing."""
    if missing(backend):
        pytest.skip(f"{backend}: {missing(backend)}")
    return xpconv.use_backend(backend)


def small():
    """One of each: a convolution, running statistics, and a shape that is read from the first input."""
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding="same"), norm=nn.BatchNorm(4), flat=nn.Flatten(), head=nn.Linear(None, 2)
    )


def assorted():
    """Layers of many kinds, in sequence, side by side and around a shortcut."""
    block = nn.Residual(nn.Sequential(conv=nn.Conv2d(4, 4, 3, padding="same"), norm=nn.BatchNorm()), activation="relu")
    return nn.Sequential(
        stem=nn.Conv2d(None, 4, (3, 3), padding=((1, 1), (0, 2)), bias=False),
        block=block,
        mix=nn.Parallel(nn.Identity(), nn.MaxPool2d([3, 3], 1, 1)),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.5),
        head=nn.Linear(None, 5),
    )


def images(n=2, size=5, channels=3, dtype="float32"):
    """Normal noise (n, size, size, channels)."""
    return np.random.default_rng(0).normal(size=(n, size, size, channels)).astype(dtype)


def corners(n: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 x 8 pixels with a light corner, which is their class."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 120, (n, 8, 8), dtype=np.uint8), rng.integers(0, 3, n)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, :][:4, 4 * (label % 2) :][:, :4] += 130
    return images, labels
