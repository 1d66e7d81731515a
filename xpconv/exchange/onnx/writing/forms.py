"""How each op is written as ONNX nodes: a layer that applies one op, somebody's own too, is written by that op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.exchange.layouts import to_oihw
from xpconv.exchange.onnx.writing.graph import NoForm, Tensor, Writer
from xpconv.window import Window, conv_window, pool_window, transposed_window

Shape = tuple[int, ...]
# (writer, x, the op's arguments by name, the output's shape) -> the output
Form = Callable[[Writer, Tensor, dict[str, Any], Shape], Tensor]
FORMS: dict[Callable[..., Any], Form] = {}


def form(*of: Callable[..., Any]) -> Callable[[Form], Form]:
    """Enter a form into the table."""

    def enter(write: Form) -> Form:
        FORMS.update(dict.fromkeys(of, write))
        return write

    return enter


def activated(g: Writer, x: Tensor, name: str | None) -> Tensor:
    """x after an activation without parameters, given by name."""
    return x if name is None else FORMS[getattr(ops, name)](g, x, {}, x.shape)


def _pads(window: Window) -> list[int]:
    return [before for before, _ in window.padding] + [after for _, after in window.padding]


def _window(window: Window) -> dict[str, Any]:
    given = {"kernel_shape": window.kernel, "strides": window.stride, "dilations": window.dilation}
    return {**given, "pads": _pads(window)}


def _refuse_residual(a: dict[str, Any], what: str) -> None:
    if a["residual"] is not None:
        raise NoForm(f"{what} with a residual of its own")


@form(ops.conv)
def _conv(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    _refuse_residual(a, "a convolution")
    window = conv_window("conv", x.spatial, a["w"].shape[:-2], a["stride"], a["padding"], a["dilation"])
    weights = [g.parameter(a["w"], to_oihw), *g.optional(a["b"], np.ravel)]
    y = g.add("Conv", g.channels_first(x), *weights, shape=shape, group=a["groups"], **_window(window))
    return activated(g, y, a["activation"])


@form(ops.conv_transpose)
def _conv_transpose(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    _refuse_residual(a, "a transposed convolution")
    kernel, options = a["w"].shape[:-2], (a["stride"], a["padding"], a["dilation"], a["output_padding"])
    window = transposed_window("conv_transpose", x.spatial, kernel, *options)
    extra = [
        n - ((m - 1) * s + d * (k - 1) + 1 - sum(pad))
        for n, m, s, d, k, pad in zip(
            window.size, x.spatial, window.stride, window.dilation, window.kernel, window.padding, strict=True
        )
    ]
    weights = [g.parameter(a["w"], to_oihw), *g.optional(a["b"], np.ravel)]
    attributes = {**_window(window), "group": a["groups"], "output_padding": extra}
    return g.add("ConvTranspose", g.channels_first(x), *weights, shape=shape, **attributes)


def _pool_window(op: str, x: Tensor, a: dict[str, Any]) -> Window:
    return pool_window(op, x.spatial, a["kernel_size"], a["stride"], a["padding"], a["dilation"], a["ceil_mode"])


@form(ops.max_pool)
def _max_pool(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    if a["return_indices"]:
        raise NoForm("a pool with indices")
    window = _window(_pool_window("max_pool", x, a))
    return g.add("MaxPool", g.channels_first(x), shape=shape, ceil_mode=int(a["ceil_mode"]), **window)


@form(ops.avg_pool)
def _avg_pool(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    window, divisor = _pool_window("avg_pool", x, a), a["divisor"]
    padded = (n + sum(pad) for n, pad in zip(window.size, window.padding, strict=True))
    if divisor is not None and any(reach > room for reach, room in zip(window.padded, padded, strict=True)):
        raise NoForm("a divisor with windows that ceil_mode lets reach beyond the padding")
    counted = bool(divisor is not None or a["count_include_pad"])
    options = {"ceil_mode": int(a["ceil_mode"]), "count_include_pad": int(counted)}
    y = g.add("AveragePool", g.channels_first(x), shape=shape, **options, **_window(window))
    if divisor is None:
        return y
    return g.add("Mul", y, g.parameter(np.asarray(math.prod(window.kernel) / divisor, g.dtype)))


@form(ops.lp_pool)
def _lp_pool(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    if a["p"] != int(a["p"]):
        raise NoForm("a p that is no integer")
    options = {"ceil_mode": int(a["ceil_mode"]), "p": int(a["p"])}
    return g.add("LpPool", g.channels_first(x), shape=shape, **options, **_window(_pool_window("lp_pool", x, a)))


_WHOLE = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def _adaptive(op: str) -> Form:
    def write(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
        x, sizes = g.channels_first(x), shape[1:-1]
        if all(n == 1 for n in sizes):
            return g.add(_WHOLE[op], x, shape=shape)
        if any(n % m for n, m in zip(x.spatial, sizes, strict=True)):
            raise NoForm(f"an adaptive pool from {x.spatial} to {sizes}, whose windows differ in size")
        kernel = [n // m for n, m in zip(x.spatial, sizes, strict=True)]
        return g.add(op, x, shape=shape, kernel_shape=kernel, strides=kernel)

    return write


FORMS[ops.adaptive_avg_pool] = FORMS[ops.global_avg_pool] = _adaptive("AveragePool")
FORMS[ops.adaptive_max_pool] = FORMS[ops.global_max_pool] = _adaptive("MaxPool")


def _scales(g: Writer, a: dict[str, Any], channels: int) -> list[str]:
    """Scale and shift, 1 and 0 where there are none."""
    gamma = np.ones(channels, g.dtype) if a["gamma"] is None else a["gamma"]
    beta = np.zeros(channels, g.dtype) if a["beta"] is None else a["beta"]
    return [g.parameter(gamma), g.parameter(beta)]


@form(ops.batch_norm)
def _batch_norm(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    if a["mean"] is None:
        raise NoForm("a batch norm by the statistics of the batch")
    _refuse_residual(a, "a batch norm")
    given = [*_scales(g, a, x.shape[-1]), g.parameter(a["mean"]), g.parameter(a["var"])]
    return activated(g, g.add("BatchNormalization", g.channels_first(x), *given, epsilon=a["eps"]), a["activation"])


@form(ops.instance_norm)
def _instance_norm(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    return g.add("InstanceNormalization", g.channels_first(x), *_scales(g, a, x.shape[-1]), epsilon=a["eps"])


@form(ops.group_norm)
def _group_norm(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    options = {"num_groups": a["num_groups"], "epsilon": a["eps"]}
    return g.add("GroupNormalization", g.channels_first(x), *_scales(g, a, x.shape[-1]), **options)


@form(ops.layer_norm)
def _layer_norm(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    rank, over = len(x.shape), sorted(axis % len(x.shape) for axis in np.atleast_1d(a["axes"]))
    if over != list(range(over[0], rank)):
        raise NoForm("a layer norm over other axes than the last")
    gamma = np.ones(x.shape[over[0] :], g.dtype) if a["gamma"] is None else a["gamma"]
    given = [g.parameter(gamma), *g.optional(a["beta"])]
    return g.add("LayerNormalization", g.channels_last(x), *given, axis=over[0] - rank, epsilon=a["eps"])


@form(ops.local_response_norm)
def _local_response_norm(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    if a["size"] % 2 == 0:
        raise NoForm("a response norm of even size, whose odd channel ONNX has on the other side")
    options = {"size": a["size"], "alpha": float(a["alpha"]), "beta": float(a["beta"]), "bias": float(a["k"])}
    return g.add("LRN", g.channels_first(x), **options)


@form(ops.linear)
def _linear(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    weights = [g.parameter(a["w"]), *g.optional(a["b"], np.ravel)]
    if len(x.shape) == 2:
        return activated(g, g.add("Gemm", x, *weights, shape=shape), a["activation"])
    y = g.add("MatMul", g.channels_last(x), weights[0], shape=shape)
    return activated(g, y if a["b"] is None else g.add("Add", y, weights[1]), a["activation"])
