"""The network for images whose every pixel gets a label, by Ronneberger, Fischer and Brox."""

from __future__ import annotations

from xpconv.arguments import integer
from xpconv.hints import explained
from xpconv.nn.containers import Parallel, Sequential
from xpconv.nn.conv import Conv2d, ConvTranspose2d
from xpconv.nn.linear import Identity
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm
from xpconv.nn.pool import MaxPool2d


@explained()
def unet(num_classes: int = 2, in_channels: int | None = None, *, width: int = 64, depth: int = 4) -> Sequential:
    """Convolutions down to a coarse image and up again, and at each resolution a way straight across.

    ``(N, H, W, C) -> (N, H, W, num_classes)`` logits, for images whose sides are multiples of 2**depth;
    O. Ronneberger, P. Fischer and T. Brox, "U-Net: Convolutional networks for biomedical image segmentation",
    arXiv:1505.04597, 2015. As is usual today, and other than there, convolutions keep the size, so that nothing is
    cropped, and a batch norm follows each.

    Parameters
    ----------
    num_classes : int
        Of each pixel.
    in_channels : int or None
        Read from the first input where it is `None`.
    width : int
        Channels at full resolution; each lower one has twice as many.
    depth : int
        How often the resolution is halved.

    Raises
    ------
    ValueError
        For a width or a depth below 1; when applied, for an image whose sides cannot be halved so often.

    Examples
    --------
    >>> from xpconv import nn
    >>> nn.models.unet(in_channels=1).summary((64, 64, 1)).parameters
    31036546
    """
    width, depth = integer("unet", "width", width, least=1), integer("unet", "depth", depth, least=1)
    return Sequential(**_level(in_channels, width, depth), head=Conv2d(width, num_classes, 1))


def _level(channels: int | None, width: int, depth: int) -> dict[str, Module]:
    """A resolution and all below it, whose answer comes up behind what goes straight across."""
    if depth == 0:
        return _twice(channels, width)
    lower = Sequential(
        pool=MaxPool2d(2), **_level(width, 2 * width, depth - 1), up=ConvTranspose2d(2 * width, width, 2, stride=2)
    )
    return {
        "down": Sequential(**_twice(channels, width)),
        "across": Parallel(same=Identity(), lower=lower),
        "merge": Sequential(**_twice(2 * width, width)),
    }


def _twice(channels: int | None, width: int) -> dict[str, Module]:
    """Two convolutions of 3 × 3, each with its norm and rectifier."""
    return {
        "conv1": Conv2d(channels, width, 3, padding=1, bias=False),
        "norm1": BatchNorm(width, activation="relu"),
        "conv2": Conv2d(width, width, 3, padding=1, bias=False),
        "norm2": BatchNorm(width, activation="relu"),
    }
