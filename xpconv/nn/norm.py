"""Normalisation layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.arguments import size_or_open
from xpconv.arrays import check_array
from xpconv.backend import HALVES, Array, cast, namespace
from xpconv.dispatch import Pullback, offered
from xpconv.errors import describe, dtype_name, message
from xpconv.nn import init as inits
from xpconv.nn.layer import Bound, Layer, check_activation, check_arguments
from xpconv.nn.parameter import Buffer, Parameter
from xpconv.nn.state import Shape
from xpconv.ops import validate


class BatchNorm(Layer):
    """Each channel by its mean and variance over all other axes, ``(..., C) -> (..., C)``; see `ops.batch_norm`.

    Training uses the statistics of the batch and moves the running ones, once for each `vjp`; inference uses those. A
    single value per channel has no variance: training raises `ValueError` then.
    Half-precision inputs are computed in float32, whose range the statistics need.
    """

    def __init__(
        self,
        num_features: int | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        activation: str | None = None,
    ) -> None:
        """Make the layer.

        Parameters
        ----------
        num_features : int or None
            Channels; read from the first input where it is `None`.
        eps : float
            Added to the variance.
        momentum : float
            The share of a batch in the running statistics: ``running += momentum * (batch - running)``. The variance
            that goes into them is the unbiased one.
        affine : bool
            Whether there are a ``weight`` (scale, 1 at first) and a ``bias`` (shift, 0), each (num_features,).
        activation : str, optional
            Name of an activation without parameters, applied in the same pass.
        """
        check_activation("BatchNorm", activation)
        check_arguments(ops.batch_norm, np.empty((0, 1)), None, None, eps=eps)
        self.eps, self.momentum = eps, validate.number("BatchNorm", "momentum", momentum, least=0, most=1)
        self.activation = activation
        num_features = size_or_open("BatchNorm", "num_features", num_features)
        self.weight, self.bias = _affine((num_features,), affine)
        self.running_mean = Buffer((num_features,), inits.zeros)
        self.running_var = Buffer((num_features,), inits.ones)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.batch_norm`, with running statistics at inference."""
        _check_sizes("BatchNorm", x, self.running_mean.shape)
        options = {"eps": self.eps, "activation": self.activation}
        if training:
            return ops.batch_norm, (x, self.weight, self.bias), {**options, "return_stats": True}
        return ops.batch_norm, (x, self.weight, self.bias, self.running_mean, self.running_var), options

    def run(self, op: Callable[..., Any], args: list[Any], options: dict[str, Any]) -> Any:
        """Apply the op, in float32 if x is of half precision."""
        y = super().run(op, _widened(args), options)
        return cast(y, args[0].dtype) if _is_half(args[0]) else y

    def run_vjp(
        self, op: Callable[..., Any], args: list[Any], options: dict[str, Any], needs: tuple[bool, ...]
    ) -> tuple[Any, Pullback]:
        """Apply the op with its pullback, in float32 if x is of half precision; its statistics stay so."""
        result, backward = super().run_vjp(op, _widened(args), options, needs)
        if not _is_half(args[0]):
            return result, backward
        half, wide = args[0].dtype, namespace(args[0]).float32

        def narrowed(dy: Array) -> tuple[Any, ...]:
            check_array("BatchNorm", "dy", dy)
            return tuple(None if grad is None else cast(grad, half) for grad in backward(cast(dy, wide)))

        return (cast(result[0], half), *result[1:]) if options.get("return_stats") else cast(result, half), narrowed

    def _applied(self, x: Array, training: bool, needs_input: bool, more: dict[str, Any]) -> tuple[Array, Pullback]:
        """As any layer's; in training the running statistics move."""
        count = math.prod(x.shape[:-1])
        if training and count == 1:
            rule = "training needs more than one value per channel."
            remedy = "use a larger batch, or vjp(x, training=False)."
            raise ValueError(message("BatchNorm", rule, describe("x", x), remedy))
        y, pullback = super()._applied(x, training, needs_input, more)
        if training:
            y, mean, var = y
            if count:
                self._move((mean, var), (1.0, count / (count - 1)))
        return y, pullback

    def _move(self, batch: tuple[Array, Array], factors: tuple[float, float]) -> None:
        """Bring the running statistics closer to a batch's, times the factors; by an engine, if one offers it."""
        both = self.running_mean, self.running_var
        values: list[Any] = [running.value for running in both]
        together = offered("move_statistics", *values, *batch)
        if together is None:
            for running, value, found, factor in zip(both, values, batch, factors, strict=True):
                running.advance(value + self.momentum * (cast(found, value.dtype) * factor - value))
            return
        together.run(*values, *batch, momentum=self.momentum, factors=factors)
        for running in both:
            running.touch()


class LayerNorm(Layer):
    """Each example by its mean and variance over the last axes; see `ops.layer_norm`."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | None = None,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
    ) -> None:
        """Make the layer.

        Parameters
        ----------
        normalized_shape : int, tuple of int, or None
            Sizes of the last axes to average over; `None`: the channels, read from the first input.
        eps : float
            Added to the variance.
        elementwise_affine : bool
            Whether there are a ``weight`` (scale, 1 at first) and a ``bias`` (shift, 0) of that shape.
        """
        given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        shape = tuple(size_or_open("LayerNorm", "normalized_shape", n) for n in given)
        check_arguments(ops.layer_norm, np.empty((0, 1)), eps=eps)
        self.eps, self.shape = eps, shape
        self.weight, self.bias = _affine(shape, elementwise_affine)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.layer_norm`."""
        _check_sizes("LayerNorm", x, self.shape)
        axes = tuple(range(-len(self.shape), 0))
        return ops.layer_norm, (x, self.weight, self.bias), {"axes": axes, "eps": self.eps}


class GroupNorm(Layer):
    """Each example and group of channels by its mean and variance; see `ops.group_norm`."""

    def __init__(
        self, num_groups: int, num_channels: int | None = None, eps: float = 1e-5, affine: bool = True
    ) -> None:
        """Make the layer.

        Parameters
        ----------
        num_groups : int
        num_channels : int or None
            Read from the first input where it is `None`.
        eps : float
            Added to the variance.
        affine : bool
            Whether there are a ``weight`` (scale, 1 at first) and a ``bias`` (shift, 0), each (num_channels,).
        """
        num_channels = size_or_open("GroupNorm", "num_channels", num_channels)
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = _affine((num_channels,), affine)
        check_arguments(ops.group_norm, np.empty((0, num_channels or 0)), num_groups, eps=eps)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.group_norm`."""
        _check_sizes("GroupNorm", x, (self.num_channels,))
        return ops.group_norm, (x, self.num_groups, self.weight, self.bias), {"eps": self.eps}


class InstanceNorm(Layer):
    """Each channel of each example by its mean and variance over space; see `ops.instance_norm`."""

    def __init__(self, num_features: int | None = None, eps: float = 1e-5, affine: bool = False) -> None:
        """Make the layer.

        Parameters
        ----------
        num_features : int or None
            Channels; read from the first input where it is `None`.
        eps : float
            Added to the variance.
        affine : bool
            Whether there are a ``weight`` (scale, 1 at first) and a ``bias`` (shift, 0), each (num_features,); as in
            PyTorch there are none by default. There are no running statistics: what a PyTorch model that tracks them
            answers in its eval mode cannot be had from its weights.
        """
        check_arguments(ops.instance_norm, np.empty((0, 1, 1)), eps=eps)
        self.num_features, self.eps = size_or_open("InstanceNorm", "num_features", num_features), eps
        self.weight, self.bias = _affine((self.num_features,), affine)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.instance_norm`."""
        _check_sizes("InstanceNorm", x, (self.num_features,))
        return ops.instance_norm, (x, self.weight, self.bias), {"eps": self.eps}


class LocalResponseNorm(Layer):
    """Each number by the squares of its neighbours across channels; see `ops.local_response_norm`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        """Make the layer; the arguments are those of `ops.local_response_norm`."""
        check_arguments(ops.local_response_norm, np.empty((0, 1)), size, alpha=alpha, beta=beta, k=k)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.local_response_norm`."""
        return ops.local_response_norm, (x, self.size), {"alpha": self.alpha, "beta": self.beta, "k": self.k}


def _is_half(x: Array) -> bool:
    return dtype_name(x.dtype) in HALVES


def _widened(arrays: list[Any]) -> list[Any]:
    """The arrays in float32, if the first is of half precision: every half number is one of float32 too."""
    if not _is_half(arrays[0]):
        return arrays
    validate.arrays("BatchNorm", x=arrays[0], gamma=arrays[1], beta=arrays[2])
    wide = namespace(arrays[0]).float32
    return [None if x is None else cast(x, wide) for x in arrays]


def _affine(shape: Shape, wanted: bool) -> tuple[Parameter | None, Parameter | None]:
    return (Parameter(shape, inits.ones), Parameter(shape, inits.zeros)) if wanted else (None, None)


def _check_sizes(layer: str, x: Array, sizes: Shape) -> None:
    """The last axes of x have the sizes that the layer was made for, also where no parameter would show it."""
    last = tuple(x.shape[-len(sizes) :])
    if any(n not in (None, m) for n, m in zip(sizes, last, strict=False)) or len(last) < len(sizes):
        turned = (*sizes[1:], sizes[0])
        first = len(sizes) > 1 and all(n in (None, m) for n, m in zip(turned, last, strict=False))
        remedy = f"channels come last: {turned}." if first else ""
        raise ValueError(message(layer, f"is made for an x whose last axes are {sizes}.", describe("x", x), remedy))
