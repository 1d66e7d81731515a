"""LeNet."""

from __future__ import annotations

from xpconv.hints import explained
from xpconv.nn.containers import Sequential
from xpconv.nn.conv import Conv2d
from xpconv.nn.dropout import Dropout
from xpconv.nn.linear import Flatten, Linear
from xpconv.nn.pool import MaxPool2d


@explained()
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
