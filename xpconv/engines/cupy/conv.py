"""Convolution in three directions: `choice` says which way, and here it gets what it needs."""

from __future__ import annotations

from typing import Any

from xpconv.backend import Array, cast
from xpconv.dispatch import Primitive
from xpconv.engines.cupy import choice, columns, depthwise, shifted
from xpconv.engines.cupy.arrays import dense, dense_or_none, unsupported
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.finish import Epilogue, Output
from xpconv.window import Window

_WAYS = {"shifted products": shifted, "depthwise": depthwise}  # all others: columns


def fprop(x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y = activation(conv(x, w) · scale + bias + residual): (N, *size, C) -> (N, *out, O)."""
    x, w, sizes = dense(x), dense(w), Sizes(window, groups, x.shape[-1], w.shape[-1])
    output = Output.like(x, (x.shape[0], *window.out, w.shape[-1]), Epilogue.of(epilogue))
    if output.y.size:
        _WAYS.get(choice.forward(x, sizes).name, columns).fprop(x, w, sizes, output)
    return output.result


def dgrad(dy: Array, w: Array, *, window: Window, groups: int, bias: Array | None, residual: Array | None) -> Array:
    """dx = the transpose of `fprop` in x, plus a bias and a residual: (N, *out, O) -> (N, *size, C)."""
    dy, w, sizes = dense(dy), dense(w), Sizes(window, groups, w.shape[-2] * groups, w.shape[-1])
    epilogue = Epilogue(dense_or_none(bias), dense_or_none(residual))
    output = Output.like(dy, (dy.shape[0], *window.size, sizes.channels), epilogue)
    if output.y.size:
        _WAYS.get(choice.backward(dy, sizes).name, columns).dgrad(dy, w, sizes, output)
    return output.y


def wgrad(x: Array, dy: Array, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> Array:
    """dw = the transpose of `fprop` in w: (N, *size, C), (N, *out, O) -> (*kernel, C / groups, O)."""
    x, dy, sizes = dense(x), dense(dy), Sizes(window, groups, x.shape[-1], w_shape[-1])
    way = depthwise if choice.weights(x, sizes).name == "depthwise" else columns
    return cast(way.wgrad(x, dy, sizes), x.dtype).reshape(w_shape)


def _declines(x: Array, w: Array, **_: Any) -> str | None:
    return unsupported(x, w) or (None if w.shape[-1] and x.shape[-1] else "has no products to add up")


def _describe_fprop(x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> str:
    return str(choice.forward(x, Sizes(window, groups, x.shape[-1], w.shape[-1])))


def _describe_dgrad(dy: Array, w: Array, *, window: Window, groups: int, bias: Any, residual: Any) -> str:
    return str(choice.backward(dy, Sizes(window, groups, w.shape[-2] * groups, w.shape[-1])))


def _describe_wgrad(x: Array, dy: Array, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> str:
    return str(choice.weights(x, Sizes(window, groups, x.shape[-1], w_shape[-1])))


PRIMITIVES = {
    "conv_fprop": Primitive(fprop, declines=_declines, describe=_describe_fprop),
    "conv_dgrad": Primitive(dgrad, declines=_declines, describe=_describe_dgrad),
    "conv_wgrad": Primitive(wgrad, declines=_declines, describe=_describe_wgrad),
}
