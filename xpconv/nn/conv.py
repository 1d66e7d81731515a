"""Convolution layers: one for any rank, and a thin one for each."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.arguments import integer
from xpconv.backend import Array
from xpconv.errors import message
from xpconv.nn import init as inits
from xpconv.nn.layer import ROOMY, Bound, Layer, check_activation
from xpconv.nn.parameter import Parameter
from xpconv.window import Ints, Padding, conv_window, per_axis, transposed_window


class Conv(Layer):
    """Convolution over ``rank`` spatial axes, ``(N, *spatial, C) -> (N, *out, O)``; see `ops.conv`."""

    rank: int

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        activation: str | None = None,
        init: str | None = None,
    ) -> None:
        """Make the layer; its ``weight`` is (*kernel_size, in_channels // groups, out_channels).

        Parameters
        ----------
        in_channels : int or None
            Read from the first input where it is `None`.
        out_channels : int
        kernel_size, stride, padding, dilation, groups
            As in `ops.conv`.
        bias : bool
            Whether there is a ``bias`` (out_channels,), zero at first.
        activation : str, optional
            Name of an activation without parameters, applied as the sums are stored.
        init : {"he_normal", "he_uniform", "glorot_normal", "glorot_uniform"}, optional
            How the weights are drawn; default: Glorot's before sigmoid and tanh, else He's.

        Raises
        ------
        ValueError
            If a number of channels is not a multiple of ``groups``, or a size does not fit.
        """
        name = type(self).__name__
        kernel = per_axis(name, "kernel_size", kernel_size, self.rank)
        _check_groups(name, groups, in_channels=in_channels, out_channels=out_channels)
        conv_window("conv", (ROOMY,) * self.rank, kernel, stride, padding, dilation)
        check_activation(name, activation)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.activation = activation
        inputs = None if in_channels is None else in_channels // groups
        self.weight = Parameter((*kernel, inputs, out_channels), inits.weight_init(name, init, activation))
        self.bias = Parameter((out_channels,), inits.zeros) if bias else None

    def open_size(self, x: Array) -> int:
        """The channels of one group."""
        _check_groups(type(self).__name__, self.groups, in_channels=x.shape[-1])
        return x.shape[-1] // self.groups

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.conv`."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return ops.conv, (x, self.weight, self.bias), {**options, "activation": self.activation}

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """One for every weight at every window."""
        return math.prod(y_shape[1:-1]) * math.prod(_sizes(self.weight))


class Conv1d(Conv):
    """Convolution over 1 spatial axis, ``(N, W, C) -> (N, W', O)``; see `ops.conv`."""

    rank = 1


class Conv2d(Conv):
    """Convolution over 2 spatial axes, ``(N, H, W, C) -> (N, H', W', O)``; see `ops.conv`."""

    rank = 2


class Conv3d(Conv):
    """Convolution over 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', O)``; see `ops.conv`."""

    rank = 3


class ConvTranspose(Layer):
    """Transposed convolution over ``rank`` spatial axes, ``(N, *spatial, C) -> (N, *out, O)``."""

    rank: int

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        *,
        init: str | None = None,
    ) -> None:
        """Make the layer; its ``weight`` is (*kernel_size, out_channels // groups, in_channels).

        Parameters
        ----------
        in_channels : int or None
            Read from the first input where it is `None`.
        out_channels : int
        kernel_size, stride, padding, output_padding, groups, dilation
            As in `ops.conv_transpose`.
        bias : bool
            Whether there is a ``bias`` (out_channels,), zero at first.
        init : {"he_normal", "he_uniform", "glorot_normal", "glorot_uniform"}, optional
            How the weights are drawn; default: He's.

        Raises
        ------
        ValueError
            If a number of channels is not a multiple of ``groups``, or a size does not fit.
        """
        name = type(self).__name__
        kernel = per_axis(name, "kernel_size", kernel_size, self.rank)
        _check_groups(name, groups, in_channels=in_channels, out_channels=out_channels)
        transposed_window("conv_transpose", (ROOMY,) * self.rank, kernel, stride, padding, dilation, output_padding)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups = dilation, groups
        steps = per_axis(name, "stride", stride, self.rank)
        draw = functools.partial(_draw_transposed, inits.weight_init(name, init, None), math.prod(steps), groups)
        self.weight = Parameter((*kernel, out_channels // groups, in_channels), draw)
        self.bias = Parameter((out_channels,), inits.zeros) if bias else None

    def open_size(self, x: Array) -> int:
        """The channels, which fall into groups."""
        _check_groups(type(self).__name__, self.groups, in_channels=x.shape[-1])
        return x.shape[-1]

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.conv_transpose`."""
        options = {"stride": self.stride, "padding": self.padding, "output_padding": self.output_padding}
        more = {"dilation": self.dilation, "groups": self.groups}
        return ops.conv_transpose, (x, self.weight, self.bias), {**options, **more}

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """One for every weight at every input cell."""
        return math.prod(x_shape[1:-1]) * math.prod(_sizes(self.weight))


class ConvTranspose1d(ConvTranspose):
    """Transposed convolution over 1 spatial axis, ``(N, W, C) -> (N, W', O)``; see `ops.conv_transpose`."""

    rank = 1


class ConvTranspose2d(ConvTranspose):
    """Transposed convolution over 2 spatial axes, ``(N, H, W, C) -> (N, H', W', O)``; see `ops.conv_transpose`."""

    rank = 2


class ConvTranspose3d(ConvTranspose):
    """Transposed convolution over 3 spatial axes, ``(N, D, H, W, C) -> (N, D', H', W', O)``."""

    rank = 3


def _draw_transposed(
    init: Any, windows: int, groups: int, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """Weights (*kernel, O / groups, C), of which one output sums the C / groups, at one cell in ``windows``."""
    return init(rng, shape, max(1, math.prod(shape[:-2]) * shape[-1] // (groups * windows)))


def _check_groups(layer: str, groups: int, **channels: int | None) -> None:
    integer(layer, "groups", groups, least=1)
    for name, n in channels.items():
        if n is not None and (integer(layer, name, n) < 1 or n % groups):
            raise ValueError(
                message(layer, f"{name} must be a positive multiple of groups.", f"{name}={n} · groups={groups}")
            )


def _sizes(weight: Parameter) -> tuple[int, ...]:
    return tuple(n for n in weight.shape if n is not None)
