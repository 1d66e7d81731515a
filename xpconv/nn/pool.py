"""Pooling layers: one for any rank, and a thin one for each."""

from __future__ import annotations

import numpy as np

from xpconv import ops
from xpconv.backend import Array
from xpconv.nn.layer import ROOMY, Bound, Layer, check_arguments
from xpconv.window import Ints, Padding, conv_window, per_axis


class MaxPool(Layer):
    """Maximum over windows of ``rank`` spatial axes; see `ops.max_pool`."""

    rank: int

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Padding = 0,
        dilation: Ints = 1,
        *,
        ceil_mode: bool = False,
        ties: str = "first",
    ) -> None:
        """Make the layer; the arguments are those of `ops.max_pool`."""
        _check_window("max_pool", self.rank, kernel_size, stride, padding, dilation)
        check_arguments(ops.max_pool, np.empty((0, 1, 1)), 1, ties=ties)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode, self.ties = ceil_mode, ties

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.max_pool`."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return ops.max_pool, (x, self.kernel_size), {**options, "ceil_mode": self.ceil_mode, "ties": self.ties}


class MaxPool1d(MaxPool):
    """Maximum over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.max_pool`."""

    rank = 1


class MaxPool2d(MaxPool):
    """Maximum over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``; see `ops.max_pool`."""

    rank = 2


class MaxPool3d(MaxPool):
    """Maximum over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``; see `ops.max_pool`."""

    rank = 3


class AvgPool(Layer):
    """Average over windows of ``rank`` spatial axes; see `ops.avg_pool`."""

    rank: int

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Padding = 0,
        *,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
    ) -> None:
        """Make the layer; the arguments are those of `ops.avg_pool`, ``divisor_override`` its divisor."""
        _check_window("avg_pool", self.rank, kernel_size, stride, padding, dilation)
        check_arguments(ops.avg_pool, np.empty((0, 1, 1)), 1, divisor=divisor_override)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.avg_pool`."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        counting = {"count_include_pad": self.count_include_pad, "divisor": self.divisor_override}
        return ops.avg_pool, (x, self.kernel_size), {**options, "ceil_mode": self.ceil_mode, **counting}


class AvgPool1d(AvgPool):
    """Average over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.avg_pool`."""

    rank = 1


class AvgPool2d(AvgPool):
    """Average over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``; see `ops.avg_pool`."""

    rank = 2


class AvgPool3d(AvgPool):
    """Average over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``; see `ops.avg_pool`."""

    rank = 3


class LpPool(Layer):
    """Root of the sum of powers over windows of ``rank`` spatial axes; see `ops.lp_pool`."""

    rank: int

    def __init__(
        self,
        norm_type: float,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Padding = 0,
        dilation: Ints = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        """Make the layer; the arguments are those of `ops.lp_pool`, ``norm_type`` its p."""
        _check_window("lp_pool", self.rank, kernel_size, stride, padding, dilation)
        check_arguments(ops.lp_pool, np.empty((0, 1, 1)), 1, p=norm_type)
        self.norm_type, self.kernel_size, self.stride = norm_type, kernel_size, stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.lp_pool`."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return ops.lp_pool, (x, self.kernel_size), {"p": self.norm_type, **options, "ceil_mode": self.ceil_mode}


class LpPool1d(LpPool):
    """Root of the sum of powers over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.lp_pool`."""

    rank = 1


class LpPool2d(LpPool):
    """Root of the sum of powers over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``."""

    rank = 2


class LpPool3d(LpPool):
    """Root of the sum of powers over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``."""

    rank = 3


class AdaptiveAvgPool2d(Layer):
    """Average over as many windows as the output is to have, ``(N, H, W, C) -> (N, *output_size, C)``."""

    rank = 2

    def __init__(self, output_size: Ints) -> None:
        """Make the layer; see `ops.adaptive_avg_pool`."""
        per_axis("AdaptiveAvgPool2d", "output_size", output_size, self.rank)
        self.output_size = output_size

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.adaptive_avg_pool`."""
        return ops.adaptive_avg_pool, (x, self.output_size), {}


class AdaptiveMaxPool2d(Layer):
    """Maximum over as many windows as the output is to have, ``(N, H, W, C) -> (N, *output_size, C)``."""

    rank = 2

    def __init__(self, output_size: Ints) -> None:
        """Make the layer; see `ops.adaptive_max_pool`."""
        per_axis("AdaptiveMaxPool2d", "output_size", output_size, self.rank)
        self.output_size = output_size

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.adaptive_max_pool`."""
        return ops.adaptive_max_pool, (x, self.output_size), {}


class GlobalAvgPool(Layer):
    """Average over all spatial axes, which stay with size 1, ``(N, *spatial, C) -> (N, 1, ..., 1, C)``."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.global_avg_pool`."""
        return ops.global_avg_pool, (x,), {}


class GlobalMaxPool(Layer):
    """Maximum over all spatial axes, which stay with size 1, ``(N, *spatial, C) -> (N, 1, ..., 1, C)``."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.global_max_pool`."""
        return ops.global_max_pool, (x,), {}


def _check_window(op: str, rank: int, kernel_size: Ints, stride: Ints | None, padding: Padding, dilation: Ints) -> None:
    """Judge what does not depend on the input's size; whether a window holds only padding does."""
    kernel = per_axis(op, "kernel_size", kernel_size, rank)
    conv_window(op, (ROOMY,) * rank, kernel, kernel if stride is None else stride, padding, dilation)
