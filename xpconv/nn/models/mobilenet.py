"""The network of inverted residuals for small machines."""

from __future__ import annotations

from xpconv.hints import explained
from xpconv.nn.containers import Residual, Sequential
from xpconv.nn.conv import Conv2d
from xpconv.nn.dropout import Dropout
from xpconv.nn.linear import Flatten, Linear
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm
from xpconv.nn.pool import GlobalAvgPool

# Table 2 of the paper: expansion, channels, blocks, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280


@explained()
def mobilenet_v2(
    num_classes: int = 1000, in_channels: int | None = None, *, width_mult: float = 1.0, dropout: float = 0.2
) -> Sequential:
    """Inverted residuals: each block widens by 1 × 1, convolves each channel by 3 × 3, and narrows by 1 × 1.

    ``(N, H, W, C) -> (N, num_classes)`` logits, for images of any size; M. Sandler et al., "MobileNetV2: inverted
    residuals and linear bottlenecks", arXiv:1801.04381, 2018, table 2.

    Parameters
    ----------
    num_classes : int
    in_channels : int or None
        Read from the first input where it is `None`.
    width_mult : float
        Multiplies all numbers of channels, which are then rounded to multiples of 8; the last does not shrink.
    dropout : float
        Before the last layer.

    Examples
    --------
    >>> from xpconv import nn
    >>> summary = nn.models.mobilenet_v2().summary((224, 224, 3))
    >>> summary.parameters, summary.multiply_adds
    (3504872, 300774272)
    """
    channels = _rounded(_STEM * width_mult)
    layers: list[Module] = [_normed(in_channels, channels, 3, stride=2)]
    for expansion, width, blocks, first_stride in STAGES:
        for i in range(blocks):
            out, stride = _rounded(width * width_mult), first_stride if i == 0 else 1
            layers.append(_block(channels, out, stride, expansion))
            channels = out
    last = _rounded(_LAST * max(1.0, width_mult))
    layers.append(_normed(channels, last, 1))
    return Sequential(
        features=Sequential(*layers),
        pool=GlobalAvgPool(),
        flatten=Flatten(),
        classifier=Sequential(Dropout(dropout), Linear(last, num_classes)),
    )


def _block(in_channels: int, channels: int, stride: int, expansion: int) -> Module:
    wide = in_channels * expansion
    widening = [] if expansion == 1 else [_normed(in_channels, wide, 1)]
    depthwise = _normed(wide, wide, 3, stride=stride, groups=wide)
    narrowing = Conv2d(wide, channels, 1, bias=False), BatchNorm(channels)
    body = Sequential(conv=Sequential(*widening, depthwise, *narrowing))
    return Residual(body) if stride == 1 and in_channels == channels else body


def _normed(in_channels: int | None, channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Sequential:
    padding = kernel_size // 2
    return Sequential(
        Conv2d(in_channels, channels, kernel_size, stride, padding, groups=groups, bias=False),
        BatchNorm(channels, activation="relu6"),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that takes away a tenth at most."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8
