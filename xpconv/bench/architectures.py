"""The distinct convolutions of published networks, derived from their architectures at 224 x 224 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from xpconv.nn.models.mobilenet import STAGES


class Conv(NamedTuple):
    """One convolution: the size of its square input, channels in and out, and its window; padding keeps the size."""

    size: int
    channels: int
    out: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        """``56² 64→64 3×3``, with the stride and "depthwise" where it is."""
        kind = " depthwise" if self.groups > 1 else ""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.size}² {self.channels}→{self.out} {self.kernel}×{self.kernel}{stride}{kind}"


def resnet50() -> tuple[Conv, ...]:
    """ResNet-50 (K. He et al., arXiv:1512.03385), whose blocks halve the image in their 3×3 convolution ("v1.5")."""
    return _distinct(every_resnet50())


def every_resnet50() -> Iterator[Conv]:
    yield Conv(224, 3, 64, 7, 2)
    size, channels = 56, 64  # after the max pool
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            yield Conv(size, channels, width, 1)
            yield Conv(size, width, width, 3, stride)
            yield Conv(size // stride, width, 4 * width, 1)
            if not block:
                yield Conv(size, channels, 4 * width, 1, stride)
            size, channels = size // stride, 4 * width


def mobilenet_v2() -> tuple[Conv, ...]:
    """MobileNetV2 (M. Sandler et al., arXiv:1801.04381, table 2)."""
    return _distinct(_mobilenet_v2())


def _mobilenet_v2() -> Iterator[Conv]:
    yield Conv(224, 3, 32, 3, 2)
    size, channels = 112, 32
    for expansion, out, repeats, first_stride in STAGES:
        for repeat in range(repeats):
            stride, wide = 1 if repeat else first_stride, expansion * channels
            if expansion > 1:
                yield Conv(size, channels, wide, 1)
            yield Conv(size, wide, wide, 3, stride, groups=wide)
            size, channels = size // stride, out
            yield Conv(size, wide, out, 1)
    yield Conv(size, channels, 1280, 1)


def _distinct(convs: Iterator[Conv]) -> tuple[Conv, ...]:
    return tuple(dict.fromkeys(convs))
