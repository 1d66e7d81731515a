"""The plain deep networks of Simonyan and Zisserman."""

from __future__ import annotations

from xpconv.hints import explained
from xpconv.nn.containers import Sequential
from xpconv.nn.conv import Conv2d
from xpconv.nn.dropout import Dropout
from xpconv.nn.linear import Flatten, Linear
from xpconv.nn.module import Module
from xpconv.nn.pool import AdaptiveAvgPool2d, MaxPool2d

# Convolutions at each resolution, which a pool then halves, for columns A and D of the paper's table 1.
_DEPTHS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
_WIDTHS = (64, 128, 256, 512, 512)
_POOLED = 7  # cells along each axis of what is flattened


@explained()
def vgg11(
    num_classes: int = 1000, in_channels: int | None = None, *, hidden: int = 4096, dropout: float = 0.5
) -> Sequential:
    """Eight convolutions of 3 × 3 in five resolutions, then three fully connected layers.

    ``(N, H, W, C) -> (N, num_classes)`` logits, for images from 32 × 32 on; K. Simonyan and A. Zisserman, "Very deep
    convolutional networks for large-scale image recognition", arXiv:1409.1556, 2014, table 1, column A.

    Parameters
    ----------
    num_classes : int
    in_channels : int or None
        Read from the first input where it is `None`.
    hidden : int
        Width of the two fully connected layers before the last; the paper's 4096 make nine tenths of all parameters.
    dropout : float
        After each of those two.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.vgg11(num_classes=10, hidden=512).summary((32, 32, 3)).parameters
    22333834
    """
    return _vgg(11, num_classes, in_channels, hidden, dropout)


@explained()
def vgg16(
    num_classes: int = 1000, in_channels: int | None = None, *, hidden: int = 4096, dropout: float = 0.5
) -> Sequential:
    """`vgg11` with thirteen convolutions: column D of the paper's table.

    Parameters as of `vgg11`.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.vgg16(num_classes=10, hidden=512).summary((32, 32, 3)).parameters
    27828042
    """
    return _vgg(16, num_classes, in_channels, hidden, dropout)


def _vgg(depth: int, num_classes: int, in_channels: int | None, hidden: int, dropout: float) -> Sequential:
    return Sequential(
        features=_features(_DEPTHS[depth], in_channels),
        avgpool=AdaptiveAvgPool2d(_POOLED),
        flatten=Flatten(),
        classifier=_numbered(
            {
                0: Linear(_WIDTHS[-1] * _POOLED**2, hidden, activation="relu"),
                2: Dropout(dropout),
                3: Linear(hidden, hidden, activation="relu"),
                5: Dropout(dropout),
                6: Linear(hidden, num_classes),
            }
        ),
    )


def _features(depths: tuple[int, ...], in_channels: int | None) -> Sequential:
    layers: dict[int, Module] = {}
    at = 0
    for depth, width in zip(depths, _WIDTHS, strict=True):
        for _ in range(depth):
            layers[at] = Conv2d(in_channels, width, 3, padding=1, activation="relu")
            at, in_channels = at + 2, width
        layers[at] = MaxPool2d(2)
        at += 1
    return _numbered(layers)


def _numbered(layers: dict[int, Module]) -> Sequential:
    """Layers by number, as PyTorch counts them: a rectifier, which here belongs to the layer before, has its own."""
    return Sequential(**{str(at): layer for at, layer in layers.items()})
