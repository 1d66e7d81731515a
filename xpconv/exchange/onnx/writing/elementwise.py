"""How activations, softmax, padding and resizing are written as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import ops
from xpconv.exchange.onnx.operators.resize import SAME
from xpconv.exchange.onnx.values import Axes
from xpconv.exchange.onnx.writing.forms import FORMS, Form, Shape, form
from xpconv.exchange.onnx.writing.graph import Tensor, Writer
from xpconv.window import conv_window


def _node(op: str, **renamed: str) -> Form:
    """One node, whose attributes are some of the op's options under other names."""

    def write(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
        return g.add(op, x, **{theirs: a[ours] for theirs, ours in renamed.items()})

    return write


FORMS |= {
    ops.relu: _node("Relu"),
    ops.sigmoid: _node("Sigmoid"),
    ops.tanh: _node("Tanh"),
    ops.softplus: _node("Softplus"),
    ops.hard_swish: _node("HardSwish"),
    ops.leaky_relu: _node("LeakyRelu", alpha="slope"),
    ops.elu: _node("Elu", alpha="alpha"),
    ops.gelu: _node("Gelu", approximate="approximate"),
    ops.hard_sigmoid: _node("HardSigmoid", alpha="alpha", beta="beta"),
}


@form(ops.silu)
def _silu(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    return g.add("Mul", x, g.add("Sigmoid", x).name)


@form(ops.relu6)
def _relu6(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    return _clip(g, x, {"min": 0.0, "max": 6.0}, shape)


@form(ops.clip)
def _clip(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    bounds = ["" if bound is None else g.parameter(np.asarray(bound, g.dtype)) for bound in (a["min"], a["max"])]
    return g.add("Clip", x, *bounds)


@form(ops.prelu)
def _prelu(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    trailing = (1,) * (len(x.shape) - 2 if x.first else 0)
    return g.add("PRelu", x, g.parameter(a["slope"], lambda slope: slope.reshape(-1, *trailing)))


def _along(op: str) -> Form:
    def write(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
        rank = len(x.shape)
        order = [Axes(rank, True).of(axis) for axis in range(rank)]  # where ONNX's axes lie in this package's order
        axis = a["axis"] % rank
        return g.add(op, x, axis=order.index(axis) if x.first and rank > 2 else axis)

    return write


FORMS[ops.softmax], FORMS[ops.log_softmax] = _along("Softmax"), _along("LogSoftmax")


@form(ops.pad)
def _pad(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    window = conv_window("pad", x.spatial, (1,) * len(x.spatial), padding=a["padding"])
    before, after = zip(*window.padding, strict=True)
    widths = g.parameter(np.array([0, 0, *before, 0, 0, *after]))
    value = [g.parameter(np.asarray(a["value"], g.dtype))] if a["mode"] == "constant" else []
    return g.add("Pad", g.channels_first(x), widths, *value, shape=shape, mode=a["mode"])


@form(ops.resize)
def _resize(g: Writer, x: Tensor, a: dict[str, Any], shape: Shape) -> Tensor:
    """To sizes, of the spatial axes alone: the batch is open."""
    wanted = a["mode"], a["align_corners"]
    mode, coordinates, rounding = next(style for style, ours in SAME.items() if ours == wanted)
    style = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding or None}
    axes, sizes = list(range(2, len(shape))), g.parameter(np.array(shape[1:-1]))
    return g.add("Resize", g.channels_first(x), "", "", sizes, shape=shape, axes=axes, **style)
