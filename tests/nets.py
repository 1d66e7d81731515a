"""Networks that several tests use, and the backends that they run on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn
from xpconv.nn import models

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


IMAGE = (9, 9, 3)
# Networks of three classes that together have every kind of layer, and what one input is like.
NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lenet": (models.lenet, (28, 28, 1)),
    "resnet20": (models.resnet20, (8, 8, 3)),
    "unet": (lambda: flat(models.unet(width=8, depth=1)), (8, 8, 3)),
    "side by side": (assorted, (5, 5, 3)),
    "convolutions": (
        lambda: flat(
            nn.Conv2d(None, 8, 3, stride=2, padding=1, activation="silu"),
            nn.Conv2d(8, 8, 3, padding="same", groups=8),
            nn.Conv2d(8, 8, 1),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
            nn.PReLU(),
        ),
        IMAGE,
    ),
    "one axis": (lambda: flat(nn.Conv1d(None, 4, 5), nn.AvgPool1d(2), nn.ConvTranspose1d(4, 2, 3)), (20, 2)),
    "three axes": (lambda: flat(nn.Conv3d(None, 4, 3), nn.MaxPool3d(2), nn.LpPool3d(2, 2)), (10, 10, 10, 1)),
    "pools": (
        lambda: flat(
            nn.MaxPool2d(3, 1, 1),
            nn.AvgPool2d(2, 1),
            nn.LpPool2d(2, 2, 1),
            nn.AdaptiveMaxPool2d(4),
            nn.AdaptiveAvgPool2d(3),
            nn.GlobalMaxPool(),
        ),
        IMAGE,
    ),
    "norms": (
        lambda: flat(
            nn.Conv2d(None, 8, 3),
            nn.BatchNorm(),
            nn.GroupNorm(2, 8),
            nn.InstanceNorm(8),
            nn.LayerNorm(),
            nn.LocalResponseNorm(3),
            nn.BatchNorm(activation="tanh"),
        ),
        IMAGE,
    ),
    "activations": (
        lambda: flat(
            *(nn.ELU(), nn.GELU(), nn.HardSigmoid(), nn.HardSwish(), nn.LeakyReLU(), nn.ReLU6(), nn.SiLU()),
            *(nn.Sigmoid(), nn.Softplus(), nn.Tanh(), nn.Softmax(), nn.Dropout(0.2), nn.LogSoftmax()),
        ),
        IMAGE,
    ),
    "borders and sizes": (
        lambda: flat(
            nn.Pad(((1, 2), (0, 1)), mode="reflect"),
            nn.Conv2d(None, 4, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Upsample(scale_factor=2),
        ),
        IMAGE,
    ),
}


def flat(*layers: nn.Module) -> nn.Module:
    """Layers, and a linear one for three classes."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(None, 3))


def examples(shape: tuple[int, ...], steps: int = 7, n: int = 4, dtype: str = "float32") -> list[tuple[Any, Any]]:
    """Batches of noise with labels of three classes."""
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(n, *shape)).astype(dtype), rng.integers(0, 3, n)) for _ in range(steps)]


def made(name: str, dtype: str = "float32") -> nn.Module:
    """One of the networks by name, with values."""
    net = NETWORKS[name][0]().initialize(seed=3)
    net(examples(NETWORKS[name][1], 1)[0][0])  # settles what is read from the first input
    return net.to(dtype=dtype)


def batches(count: int, n: int = 2, shape: tuple[int, ...] = IMAGE, dtype: str = "float32") -> list[np.ndarray]:
    """Batches of noise alone."""
    return [x for x, _ in examples(shape, count, n, dtype)]


def assert_answers(predictor: Any, net: nn.Module, inputs: list[np.ndarray]) -> None:
    """That a predictor's answers are the network's, to the bit."""
    for x in inputs:
        assert predictor(x).tobytes() == net(x).tobytes()
