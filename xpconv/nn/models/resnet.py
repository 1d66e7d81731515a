"""Residual networks: the narrow ones for small images, and those for photographs."""

from __future__ import annotations

from collections.abc import Callable

from xpconv.errors import message
from xpconv.hints import explained
from xpconv.nn.containers import IdentityShortcut, Residual, Sequential
from xpconv.nn.conv import Conv2d
from xpconv.nn.linear import Flatten, Linear
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm
from xpconv.nn.pool import GlobalAvgPool, MaxPool2d

_Block = Callable[[int, int, int], tuple[Module, int]]  # (in_channels, width, stride) -> block, its channels


@explained()
def resnet_cifar(depth: int, num_classes: int = 10, in_channels: int | None = None) -> Sequential:
    """The residual network of depth 6n + 2 for small images: three stages of n blocks with 16, 32 and 64 channels.

    ``(N, H, W, C) -> (N, num_classes)`` logits; K. He et al., "Deep residual learning for image recognition",
    arXiv:1512.03385, 2015, section 4.2, with its shortcuts without parameters (option A).

    Parameters
    ----------
    depth : int
        20, 32, 44, 56, 110, ...
    num_classes : int
    in_channels : int or None
        Read from the first input where it is `None`.

    Raises
    ------
    ValueError
        If the depth is not 6n + 2.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.resnet_cifar(20).summary((32, 32, 3)).parameters
    269722
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(message("resnet_cifar", f"depth must be 6n + 2, not {depth}.", "", "20, 32, 44, 56, 110, ..."))
    return Sequential(
        conv1=_conv3x3(in_channels, 16),
        bn1=BatchNorm(16, activation="relu"),
        layer1=_stage(16, 16, n),
        layer2=_stage(16, 32, n),
        layer3=_stage(32, 64, n),
        pool=GlobalAvgPool(),
        flatten=Flatten(),
        fc=Linear(64, num_classes),
    )


@explained()
def resnet20(num_classes: int = 10, in_channels: int | None = None) -> Sequential:
    """`resnet_cifar` of depth 20: 0.27 million parameters."""
    return resnet_cifar(20, num_classes, in_channels)


@explained()
def resnet18(num_classes: int = 1000, in_channels: int | None = None) -> Sequential:
    """The residual network of 18 layers for photographs: four stages of two blocks with 64 to 512 channels.

    ``(N, H, W, C) -> (N, num_classes)`` logits, for images of any size; K. He et al., "Deep residual learning for
    image recognition", arXiv:1512.03385, 2015, table 1, with projections where a shape changes (option B).

    Parameters
    ----------
    num_classes : int
    in_channels : int or None
        Read from the first input where it is `None`.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.resnet18().summary((224, 224, 3)).parameters
    11689512
    """
    return _resnet(_basic, (2, 2, 2, 2), num_classes, in_channels)


@explained()
def resnet34(num_classes: int = 1000, in_channels: int | None = None) -> Sequential:
    """`resnet18` with sixteen blocks: 34 layers."""
    return _resnet(_basic, (3, 4, 6, 3), num_classes, in_channels)


@explained()
def resnet50(num_classes: int = 1000, in_channels: int | None = None) -> Sequential:
    """The residual network of 50 layers: blocks of 1 × 1, 3 × 3 and 1 × 1 convolutions around a narrow middle.

    As `resnet18` otherwise. A block that halves the resolution does so in its 3 × 3 convolution, as later practice has
    it, not in the 1 × 1 before.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.resnet50().summary((224, 224, 3)).parameters
    25557032
    """
    return _resnet(_bottleneck, (3, 4, 6, 3), num_classes, in_channels)


@explained()
def resnet101(num_classes: int = 1000, in_channels: int | None = None) -> Sequential:
    """`resnet50` with 33 blocks: 101 layers."""
    return _resnet(_bottleneck, (3, 4, 23, 3), num_classes, in_channels)


def _resnet(block: _Block, depths: tuple[int, ...], num_classes: int, in_channels: int | None) -> Sequential:
    stages, channels = {}, 64
    for i, depth in enumerate(depths):
        blocks = []
        for j in range(depth):
            made, channels = block(channels, 64 * 2**i, 2 if i and not j else 1)
            blocks.append(made)
        stages[f"layer{i + 1}"] = Sequential(*blocks)
    return Sequential(
        conv1=Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        bn1=BatchNorm(64, activation="relu"),
        maxpool=MaxPool2d(3, stride=2, padding=1),
        **stages,
        avgpool=GlobalAvgPool(),
        flatten=Flatten(),
        fc=Linear(channels, num_classes),
    )


def _basic(in_channels: int, width: int, stride: int) -> tuple[Module, int]:
    return Residual(_pair(in_channels, width, stride), _projection(in_channels, width, stride), "relu"), width


def _bottleneck(in_channels: int, width: int, stride: int) -> tuple[Module, int]:
    wide = 4 * width
    body = Sequential(
        conv1=Conv2d(in_channels, width, 1, bias=False),
        bn1=BatchNorm(width, activation="relu"),
        conv2=_conv3x3(width, width, stride),
        bn2=BatchNorm(width, activation="relu"),
        conv3=Conv2d(width, wide, 1, bias=False),
        bn3=BatchNorm(wide),
    )
    return Residual(body, _projection(in_channels, wide, stride), "relu"), wide


def _projection(in_channels: int, channels: int, stride: int) -> Sequential | None:
    """The shortcut of a block: nothing where the shape stays."""
    if stride == 1 and in_channels == channels:
        return None
    return Sequential(Conv2d(in_channels, channels, 1, stride, bias=False), BatchNorm(channels))


def _stage(in_channels: int, channels: int, blocks: int) -> Sequential:
    """Blocks at one resolution; the first halves it where the channels grow."""
    first = _block(in_channels, channels, 1 if in_channels == channels else 2)
    return Sequential(first, *(_block(channels, channels) for _ in range(blocks - 1)))


def _block(in_channels: int, channels: int, stride: int = 1) -> Residual:
    same = stride == 1 and in_channels == channels
    shortcut = None if same else IdentityShortcut(channels, stride)
    return Residual(_pair(in_channels, channels, stride), shortcut, activation="relu")


def _pair(in_channels: int, channels: int, stride: int) -> Sequential:
    return Sequential(
        conv1=_conv3x3(in_channels, channels, stride),
        bn1=BatchNorm(channels, activation="relu"),
        conv2=_conv3x3(channels, channels),
        bn2=BatchNorm(channels),
    )


def _conv3x3(in_channels: int | None, channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)  # the norm that follows has the shift
