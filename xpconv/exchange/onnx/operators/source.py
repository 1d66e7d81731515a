"""What makes tensors of nothing, or of shapes: on the host, until an array of another device needs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import Array
from xpconv.exchange.onnx import reading
from xpconv.exchange.onnx.operators.logic import dtype_of
from xpconv.exchange.onnx.table import Node, Refusal, operator


@operator("Constant")
def constant(node: Node) -> Any:
    """A tensor that stands in an attribute."""
    kinds = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    for name, dtype in kinds.items():
        if node.get(name) is not None:
            made = np.asarray(node.get(name), dtype=dtype)
            return lambda: made
    value = tensor(node)
    if value is None:
        raise Refusal("a constant that is sparse or of strings")
    return lambda: value


def tensor(node: Node) -> np.ndarray | None:
    """The attribute ``value`` as an array."""
    value = node.get("value")
    if value is None:
        return None
    dtype_of(value.data_type)
    return reading.array(value, f"{node.op}, {node.label}")


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node) -> Any:
    """An array filled with one number, by default the 0 of float32."""
    value = tensor(node)
    fill = np.zeros(1, np.float32) if value is None else value.reshape(1)
    return lambda shape: np.full(tuple(shape.tolist()), fill[0], dtype=fill.dtype)


@operator("Range", host=(0, 1, 2))
def numbers(node: Node) -> Any:
    """``start, start + delta, ...`` below ``limit``."""
    node.get("stash_type")
    return lambda start, limit, delta: np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("Shape")
def shape(node: Node) -> Any:
    """The shape, or a part of it."""
    part = slice(node.get("start", 0), node.get("end"))
    return lambda x: np.array(x.shape[part], dtype=np.int64)


@operator("Size")
def size(node: Node) -> Any:
    """The number of elements."""

    def run(x: Array) -> np.ndarray:
        return np.array(np.prod(x.shape, dtype=np.int64))

    return run
