"""Conv and ConvTranspose, with the weights turned to ``(*kernel, in, out)`` at load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpconv import ops
from xpconv.backend import Array
from xpconv.exchange.layouts import to_hwio
from xpconv.exchange.onnx.operators.window import window_options
from xpconv.exchange.onnx.table import Node, Order, Refusal, Step, operator


@operator("Conv", order=Order.LAST)
def conv(node: Node) -> Step:
    """`ops.conv`."""
    node.get("kernel_shape")  # the weights tell it too
    options = {**window_options(node), "groups": node.get("group", 1)}

    def step(activation: str | None = None) -> Step:
        def run(x: Array, w: Array, b: Array | None = None) -> Array:
            return ops.conv(x, w, b, activation=activation, **options)

        return Step(run, convert={1: to_hwio}, activated=step)

    return step()


@operator("ConvTranspose", order=Order.LAST)
def conv_transpose(node: Node) -> Step:
    """`ops.conv_transpose`."""
    node.get("kernel_shape")
    options = {**window_options(node), "groups": node.get("group", 1)}
    extra, target = node.get("output_padding"), node.get("output_shape")
    upper = node.get("auto_pad", "NOTSET") == "SAME_UPPER"
    if target is None and any(extra or ()) and options.get("padding") in ("same", "same_lower"):
        raise Refusal(f"auto_pad={node.get('auto_pad')} with output_padding={list(extra)}, which contradict each other")

    def run(x: Array, w: Array, b: Array | None = None) -> Array:
        sizes = x.shape[1:-1]
        given = {**options, "output_padding": tuple(extra or (0,) * len(sizes))}
        if target is not None:
            given |= _padding_for(target[-len(sizes) :], sizes, w.shape[:-2], given, upper)
        return ops.conv_transpose(x, w, b, **given)

    return Step(run, convert={1: to_hwio})


def _padding_for(
    target: Sequence[int], sizes: Sequence[int], kernel: Sequence[int], options: dict[str, Any], upper: bool
) -> dict[str, Any]:
    """The padding and output padding that give an output of the size asked for."""
    padding, extra = [], []
    for axis, n in enumerate(sizes):
        stride, dilation = (_at(options.get(name, 1), axis) for name in ("stride", "dilation"))
        full = stride * (n - 1) + dilation * (kernel[axis] - 1) + 1
        surplus = full + options["output_padding"][axis] - target[axis]
        half = max(surplus, 0) // 2
        padding.append((half, max(surplus, 0) - half) if upper else (max(surplus, 0) - half, half))
        extra.append(options["output_padding"][axis] + max(-surplus, 0))
    return {"padding": tuple(padding), "output_padding": tuple(extra)}


def _at(value: Any, axis: int) -> int:
    return value[axis] if isinstance(value, tuple) else value
