"""A training step in PyTorch: the same networks as modules, with the same first weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.case import CLASSES, Case
from xpconv.bench.networks import LR, MOMENTUM
from xpconv.bench.sides.torch import device


def make(case: Case, arrays: dict[str, np.ndarray], laid_out: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The step, and what `truth` judges: the losses of the first two."""
    import torch
    from torch.nn import functional

    net = {"lenet": _lenet, "resnet20": _resnet20}[case.layer.options["model"]](arrays["x"])
    _load(net, arrays)
    net.to(device(), memory_format=laid_out)
    x = torch.from_numpy(arrays["x"]).permute(0, 3, 1, 2).to(device()).contiguous(memory_format=laid_out)
    labels = torch.from_numpy(arrays["labels"]).to(device())
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def call() -> Any:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call, lambda: {"losses": torch.stack([call() for _ in range(2)]).cpu().numpy()}


def _load(net: Any, arrays: dict[str, np.ndarray]) -> None:
    """Give the modules xpconv's values, which go by the same names."""
    import torch

    state, seen = net.state_dict(), None
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        value = arrays[name]
        if value.ndim == 4:
            seen, value = value, value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            if seen is not None and value.shape[0] > seen.shape[-1]:  # after a flatten: rows go (H, W, C) -> (C, H, W)
                size = round((value.shape[0] / seen.shape[-1]) ** 0.5)
                value = value.reshape(size, size, seen.shape[-1], -1).transpose(2, 0, 1, 3).reshape(value.shape)
            seen, value = None, value.T
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _lenet(x: np.ndarray) -> Any:
    from torch import nn

    size = x.shape[1] // 4
    layers = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(x.shape[-1], 32, 3, padding="same"),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 3, padding="same"),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(64 * size * size, 128),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(128, CLASSES),
    }.items():
        layers.add_module(name, layer)
    return layers


def _resnet20(x: np.ndarray) -> Any:
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.stride, self.more = stride, out - channels
            self.body = nn.Sequential()
            for name, layer in {
                "conv1": nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
                "bn1": nn.BatchNorm2d(out),
                "relu": nn.ReLU(),
                "conv2": nn.Conv2d(out, out, 3, padding=1, bias=False),
                "bn2": nn.BatchNorm2d(out),
            }.items():
                self.body.add_module(name, layer)

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.stride > 1 or self.more:
                shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(self.body(x) + shortcut)

    def stage(channels: int, out: int) -> Any:
        first = Block(channels, out, 1 if channels == out else 2)
        return nn.Sequential(first, Block(out, out, 1), Block(out, out, 1))

    layers = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(x.shape[-1], 16, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(16),
        "relu": nn.ReLU(),
        "layer1": stage(16, 16),
        "layer2": stage(16, 32),
        "layer3": stage(32, 64),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(64, CLASSES),
    }.items():
        layers.add_module(name, layer)
    return layers
