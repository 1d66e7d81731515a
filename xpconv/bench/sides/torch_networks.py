"""The networks whose steps are timed as PyTorch modules, whose parameters go by xpconv's names."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.bench.networks import CLASSES, UNET
from xpconv.nn.models.mobilenet import STAGES


def network(model: str, x: np.ndarray) -> Any:
    """A network for images such as x (N, H, W, C)."""
    made = {"lenet": _lenet, "resnet20": _resnet20, "unet": _unet, "resnet50": _resnet50, "mobilenet_v2": _mobilenet_v2}
    return made[model](x)


def _lenet(x: np.ndarray) -> Any:
    from torch import nn

    size = x.shape[1] // 4
    return _named(
        {
            "conv1": nn.Conv2d(x.shape[-1], 32, 3, padding="same"),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(32, 64, 3, padding="same"),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(64 * size * size, 128),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(128, CLASSES["lenet"]),
        }
    )


def _named(layers: dict[str, Any]) -> Any:
    from torch import nn

    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    return made


def _resnet20(x: np.ndarray) -> Any:
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.stride, self.more = stride, out - channels
            self.body = _named(
                {
                    "conv1": nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
                    "bn1": nn.BatchNorm2d(out),
                    "relu": nn.ReLU(),
                    "conv2": nn.Conv2d(out, out, 3, padding=1, bias=False),
                    "bn2": nn.BatchNorm2d(out),
                }
            )

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.stride > 1 or self.more:
                shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(self.body(x) + shortcut)

    def stage(channels: int, out: int) -> Any:
        first = Block(channels, out, 1 if channels == out else 2)
        return nn.Sequential(first, Block(out, out, 1), Block(out, out, 1))

    return _named(
        {
            "conv1": nn.Conv2d(x.shape[-1], 16, 3, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(16),
            "relu": nn.ReLU(),
            "layer1": stage(16, 16),
            "layer2": stage(16, 32),
            "layer3": stage(32, 64),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(64, CLASSES["resnet20"]),
        }
    )


def _resnet50(x: np.ndarray) -> Any:
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.body = _named(
                {
                    "conv1": nn.Conv2d(channels, width, 1, bias=False),
                    "bn1": nn.BatchNorm2d(width),
                    "relu1": nn.ReLU(inplace=True),
                    "conv2": nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
                    "bn2": nn.BatchNorm2d(width),
                    "relu2": nn.ReLU(inplace=True),
                    "conv3": nn.Conv2d(width, 4 * width, 1, bias=False),
                    "bn3": nn.BatchNorm2d(4 * width),
                }
            )
            self.shortcut = nn.Sequential()
            if stride > 1 or channels != 4 * width:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
                )

        def forward(self, x: Any) -> Any:
            return functional.relu_(self.body(x) + self.shortcut(x))

    def stage(channels: int, width: int, blocks: int, stride: int) -> Any:
        rest = (Block(4 * width, width, 1) for _ in range(blocks - 1))
        return nn.Sequential(Block(channels, width, stride), *rest)

    return _named(
        {
            "conv1": nn.Conv2d(x.shape[-1], 64, 7, 2, padding=3, bias=False),
            "bn1": nn.BatchNorm2d(64),
            "relu": nn.ReLU(inplace=True),
            "maxpool": nn.MaxPool2d(3, 2, padding=1),
            "layer1": stage(64, 64, 3, 1),
            "layer2": stage(256, 128, 4, 2),
            "layer3": stage(512, 256, 6, 2),
            "layer4": stage(1024, 512, 3, 2),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(2048, CLASSES["resnet50"]),
        }
    )


def _mobilenet_v2(x: np.ndarray) -> Any:
    from torch import nn

    def normed(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))

    class Residual(nn.Module):
        def __init__(self, body: Any) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    def block(channels: int, out: int, stride: int, expansion: int) -> Any:
        wide = channels * expansion
        widening = [] if expansion == 1 else [normed(channels, wide, 1)]
        narrowing = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)
        conv = nn.Sequential(*widening, normed(wide, wide, 3, stride, groups=wide), *narrowing)
        body = _named({"conv": conv})
        return Residual(body) if stride == 1 and channels == out else body

    layers, channels = [normed(x.shape[-1], 32, 3, 2)], 32
    for expansion, out, blocks, first in STAGES:
        for i in range(blocks):
            layers.append(block(channels, out, first if i == 0 else 1, expansion))
            channels = out
    return _named(
        {
            "features": nn.Sequential(*layers, normed(channels, 1280, 1)),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, CLASSES["mobilenet_v2"])),
        }
    )


def _unet(x: np.ndarray) -> Any:
    import torch
    from torch import nn

    class Parallel(nn.Module):
        def __init__(self, lower: Any) -> None:
            super().__init__()
            self.lower = lower

        def forward(self, x: Any) -> Any:
            return torch.cat((x, self.lower(x)), dim=1)

    def twice(channels: int, width: int) -> dict[str, Any]:
        return {
            "conv1": nn.Conv2d(channels, width, 3, padding=1, bias=False),
            "norm1": nn.BatchNorm2d(width),
            "relu1": nn.ReLU(inplace=True),
            "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
            "norm2": nn.BatchNorm2d(width),
            "relu2": nn.ReLU(inplace=True),
        }

    def level(channels: int, width: int, depth: int) -> dict[str, Any]:
        if depth == 0:
            return twice(channels, width)
        lower = level(width, 2 * width, depth - 1)
        up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        return {
            "down": _named(twice(channels, width)),
            "across": Parallel(_named({"pool": nn.MaxPool2d(2), **lower, "up": up})),
            "merge": _named(twice(2 * width, width)),
        }

    width = UNET["width"]
    head = nn.Conv2d(width, CLASSES["unet"], 1)
    return _named({**level(x.shape[-1], width, UNET["depth"]), "head": head})
