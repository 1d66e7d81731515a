"""Pooling layers: one for any rank, and a thin one for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import Array
from xpconv.nn.layer import ROOMY, Bound, Layer, check_arguments
from xpconv.window import Ints, Padding, conv_window, per_axis


class _Windowed(Layer):
    """Pooling over windows of ``rank`` spatial axes: what its kinds have alike."""

    rank: int

    def _set_window(
        self, op: str, kernel_size: Ints, stride: Ints | None, padding: Padding, dilation: Ints, ceil_mode: bool
    ) -> None:
        """Keep the window; judge what does not depend on the input's size: whether one holds only padding does."""
        kernel = per_axis(op, "kernel_size", kernel_size, self.rank)
        conv_window(op, (ROOMY,) * self.rank, kernel, kernel if stride is None else stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode = ceil_mode

    def _window(self) -> dict[str, Any]:
        """The window's options, for the op."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
        }


class MaxPool(_Windowed):
    """Maximum over windows of ``rank`` spatial axes; see `ops.max_pool`."""

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
        self._set_window("max_pool", kernel_size, stride, padding, dilation, ceil_mode)
        check_arguments(ops.max_pool, np.empty((0, 1, 1)), 1, ties=ties)
        self.ties = ties

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.max_pool`."""
        return ops.max_pool, (x, self.kernel_size), {**self._window(), "ties": self.ties}


class MaxPool1d(MaxPool):
    """Maximum over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.max_pool`."""

    rank = 1


class MaxPool2d(MaxPool):
    """Maximum over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``; see `ops.max_pool`."""

    rank = 2


class MaxPool3d(MaxPool):
    """Maximum over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``; see `ops.max_pool`."""

    rank = 3


class AvgPool(_Windowed):
    """Average over windows of ``rank`` spatial axes; see `ops.avg_pool`."""

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
        self._set_window("avg_pool", kernel_size, stride, padding, dilation, ceil_mode)
        check_arguments(ops.avg_pool, np.empty((0, 1, 1)), 1, divisor=divisor_override)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.avg_pool`."""
        counting = {"count_include_pad": self.count_include_pad, "divisor": self.divisor_override}
        return ops.avg_pool, (x, self.kernel_size), {**self._window(), **counting}


class AvgPool1d(AvgPool):
    """Average over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.avg_pool`."""

    rank = 1


class AvgPool2d(AvgPool):
    """Average over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``; see `ops.avg_pool`."""

    rank = 2


class AvgPool3d(AvgPool):
    """Average over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``; see `ops.avg_pool`."""

    rank = 3


class LpPool(_Windowed):
    """Root of the sum of powers over windows of ``rank`` spatial axes; see `ops.lp_pool`."""

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
        self._set_window("lp_pool", kernel_size, stride, padding, dilation, ceil_mode)
        check_arguments(ops.lp_pool, np.empty((0, 1, 1)), 1, p=norm_type)
        self.norm_type = norm_type

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.lp_pool`."""
        return ops.lp_pool, (x, self.kernel_size), {"p": self.norm_type, **self._window()}


class LpPool1d(LpPool):
    """Root of the sum of powers over windows of 1 spatial axis, ``(N, W, C) -> (N, W', C)``; see `ops.lp_pool`."""

    rank = 1


class LpPool2d(LpPool):
    """Root of the sum of powers over windows of 2 spatial axes, ``(N, H, W, C) -> (N, H', W', C)``."""

    rank = 2


class LpPool3d(LpPool):
    """Root of the sum of powers over windows of 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', C)``."""

    rank = 3


class _Adaptive(Layer):
    """Pooling over as many windows as the output is to have."""

    rank: int

    def __init__(self, output_size: Ints) -> None:
        """Make the layer; ``output_size`` is an int or one per spatial axis."""
        per_axis(type(self).__name__, "output_size", output_size, self.rank)
        self.output_size = output_size


class AdaptiveAvgPool(_Adaptive):
    """Average over as many windows as the output is to have, ``(N, *spatial, C) -> (N, *output_size, C)``."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.adaptive_avg_pool`."""
        return ops.adaptive_avg_pool, (x, self.output_size), {}


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """Average over as many windows as the output is to have, ``(N, W, C) -> (N, *output_size, C)``."""

    rank = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """Average over as many windows as the output is to have, ``(N, H, W, C) -> (N, *output_size, C)``."""

    rank = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    """Average over as many windows as the output is to have, ``(N, D, H, W, C) -> (N, *output_size, C)``."""

    rank = 3


class AdaptiveMaxPool(_Adaptive):
    """Maximum over as many windows as the output is to have, ``(N, *spatial, C) -> (N, *output_size, C)``."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.adaptive_max_pool`."""
        return ops.adaptive_max_pool, (x, self.output_size), {}


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """Maximum over as many windows as the output is to have, ``(N, W, C) -> (N, *output_size, C)``."""

    rank = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """Maximum over as many windows as the output is to have, ``(N, H, W, C) -> (N, *output_size, C)``."""

    rank = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """Maximum over as many windows as the output is to have, ``(N, D, H, W, C) -> (N, *output_size, C)``."""

    rank = 3


class GlobalAvgPool(Layer):
    """Average over all spatial axes, which stay with size 1, ``(N, *spatial, C) -> (N, 1, ..., 1, C)``."""

    def __init__(self) -> None:
        """Make the layer."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.global_avg_pool`."""
        return ops.global_avg_pool, (x,), {}


class GlobalMaxPool(Layer):
    """Maximum over all spatial axes, which stay with size 1, ``(N, *spatial, C) -> (N, 1, ..., 1, C)``."""

    def __init__(self) -> None:
        """Make the layer."""

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.global_max_pool`."""
        return ops.global_max_pool, (x,), {}
