"""Networks of the literature, as plain functions that return a `Sequential`."""

from __future__ import annotations

from collections.abc import Callable

from xpconv.errors import message
from xpconv.nn.containers import IdentityShortcut, Residual, Sequential
from xpconv.nn.conv import Conv2d
from xpconv.nn.dropout import Dropout
from xpconv.nn.linear import Flatten, Linear
from xpconv.nn.norm import BatchNorm
from xpconv.nn.pool import GlobalAvgPool, MaxPool2d


def lenet(num_classes: int = 10, in_channels: int | None = None) -> Sequential:
    """LeNet's plan at today's widths: two convolutions, each with a pool, then two fully connected layers.

    ``(N, H, W, C) -> (N, num_classes)`` logits, for images from 4 × 4 on. The plan is that of Y. LeCun et al.,
    "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998; kernels of 3 × 3, rectifiers, max
    pools and dropout came later.

    Parameters
    ----------
    num_classes : int
    in_channels : int or None
        Read from the first input where it is `None`.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.lenet().summary((28, 28, 1)).parameters
    421642
    """
    return Sequential(
        conv1=Conv2d(in_channels, 32, 3, padding="same", activation="relu"),
        pool1=MaxPool2d(2),
        conv2=Conv2d(32, 64, 3, padding="same", activation="relu"),
        pool2=MaxPool2d(2),
        flatten=Flatten(),
        fc1=Linear(None, 128, activation="relu"),
        dropout=Dropout(0.5),
        fc2=Linear(128, num_classes),
    )


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


def resnet20(num_classes: int = 10, in_channels: int | None = None) -> Sequential:
    """`resnet_cifar` of depth 20: 0.27 million parameters."""
    return resnet_cifar(20, num_classes, in_channels)


def _stage(in_channels: int, channels: int, blocks: int) -> Sequential:
    """Blocks at one resolution; the first halves it where the channels grow."""
    first = _block(in_channels, channels, 1 if in_channels == channels else 2)
    return Sequential(first, *(_block(channels, channels) for _ in range(blocks - 1)))


def _block(in_channels: int, channels: int, stride: int = 1) -> Residual:
    body = Sequential(
        conv1=_conv3x3(in_channels, channels, stride),
        bn1=BatchNorm(channels, activation="relu"),
        conv2=_conv3x3(channels, channels),
        bn2=BatchNorm(channels),
    )
    same = stride == 1 and in_channels == channels
    return Residual(body, None if same else IdentityShortcut(channels, stride), activation="relu")


def _conv3x3(in_channels: int | None, channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)  # the norm that follows has the shift


MODELS: dict[str, Callable[..., Sequential]] = {"lenet": lenet, "resnet20": resnet20}
