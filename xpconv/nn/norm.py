"""Normalisation layers."""

from __future__ import annotations

import math
from typing import Any

from xpconv import ops
from xpconv.backend import Array, cast
from xpconv.errors import describe, message
from xpconv.nn import init as inits
from xpconv.nn.layer import Bound, Layer
from xpconv.nn.module import LayerPullback
from xpconv.nn.state import Buffer, Parameter, Shape


class BatchNorm(Layer):
    """Each channel by its mean and variance over all other axes, ``(..., C) -> (..., C)``; see `ops.batch_norm`.

    Training uses the statistics of the batch and moves the running ones, once for each `vjp`; inference uses those.
    """

    def __init__(
        self, num_features: int | None = None, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
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
        """
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = _affine((num_features,), affine)
        self.running_mean = Buffer((num_features,), inits.zeros)
        self.running_var = Buffer((num_features,), inits.ones)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.batch_norm`, with running statistics at inference."""
        if training:
            return ops.batch_norm, (x, self.weight, self.bias), {"eps": self.eps, "return_stats": True}
        running = self.running_mean.beside(x), self.running_var.beside(x)
        return ops.batch_norm, (x, self.weight, self.bias, *running), {"eps": self.eps}

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`.

        Raises
        ------
        ValueError
            In training, for a single value per channel: it has no variance.
        """
        count = math.prod(x.shape[:-1])
        if training and count == 1:
            rule = "training needs more than one value per channel."
            remedy = "use a larger batch, or vjp(x, training=False)."
            raise ValueError(message("BatchNorm", rule, describe("x", x), remedy))
        y, pullback = super().vjp(x, training, needs_input)
        if training:
            y, mean, var = y
            if count:
                self._move(self.running_mean, mean, 1.0)
                self._move(self.running_var, var, count / (count - 1))
        return y, pullback

    def _move(self, running: Buffer, batch: Array, factor: float) -> None:
        value: Any = running.value
        running.assign(value + self.momentum * (cast(batch, value.dtype) * factor - value))


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
        shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
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
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = _affine((num_channels,), affine)

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.group_norm`."""
        _check_sizes("GroupNorm", x, (self.num_channels,))
        return ops.group_norm, (x, self.num_groups, self.weight, self.bias), {"eps": self.eps}


def _affine(shape: Shape, wanted: bool) -> tuple[Parameter | None, Parameter | None]:
    return (Parameter(shape, inits.ones), Parameter(shape, inits.zeros)) if wanted else (None, None)


def _check_sizes(layer: str, x: Array, sizes: Shape) -> None:
    """The last axes of x have the sizes that the layer was made for, also where no parameter would show it."""
    last = tuple(x.shape[-len(sizes) :])
    if any(n not in (None, m) for n, m in zip(sizes, last, strict=False)) or len(last) < len(sizes):
        raise ValueError(message(layer, f"is made for an x whose last axes are {sizes}.", describe("x", x)))
