"""Comparisons and truth values, elementwise with broadcasting; casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.backend import Array, cast, dtype_named, namespace
from xpconv.exchange.onnx.operators.arithmetic import aligned
from xpconv.exchange.onnx.table import DTYPES, Node, Order, Refusal, dtype_told, operator

PAIRS = {
    "And": "logical_and",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Or": "logical_or",
    "Xor": "logical_xor",
}


@operator(*PAIRS, order=Order.ANY)
def compare(node: Node) -> Any:
    """A function of the array API that answers with truth values."""
    name = PAIRS[node.op]
    return aligned(node, lambda a, b: getattr(namespace(a), name)(a, b))


SINGLE: dict[str, Callable[[Array], Array]] = {
    "Not": lambda x: namespace(x).logical_not(x),
    "IsNaN": lambda x: namespace(x).isnan(x),
}


@operator(*SINGLE, order=Order.ANY)
def single(node: Node) -> Any:
    """Truth values of one array."""
    return SINGLE[node.op]


@operator("IsInf", order=Order.ANY)
def is_inf(node: Node) -> Any:
    """Infinities, of both signs or of one."""
    positive, negative = node.get("detect_positive", 1), node.get("detect_negative", 1)

    def run(x: Array) -> Array:
        found = namespace(x).isinf(x)
        return found & ((x > 0) & bool(positive) | (x < 0) & bool(negative))

    return run


@operator("Where", order=Order.ANY)
def where(node: Node) -> Any:
    """One of two arrays, elementwise."""
    return lambda condition, a, b: namespace(a).where(condition, a, b)


def dtype_of(number: int) -> str:
    """The name of a tensor type."""
    if number not in DTYPES:
        raise Refusal(f"the dtype {dtype_told(number)}")
    return DTYPES[number]


@operator("Cast", order=Order.ANY)
def to_dtype(node: Node) -> Any:
    """Another dtype."""
    name = dtype_of(node.get("to"))
    node.get("saturate"), node.get("round_mode")  # of 8-bit floating-point numbers
    return lambda x: cast(x, dtype_named(namespace(x), name))


@operator("CastLike", order=Order.ANY)
def cast_like(node: Node) -> Any:
    """The dtype of another array."""
    node.get("saturate"), node.get("round_mode")
    return lambda x, like: cast(x, like.dtype)
