"""Matrix products."""

from __future__ import annotations

from typing import Any

from xpconv import ops
from xpconv.backend import Array, namespace
from xpconv.exchange.onnx.table import Node, Step, operator
from xpconv.kinds import is_inexact


@operator("Gemm")
def gemm(node: Node) -> Step:
    """``alpha A B + beta C``, where the transposes are taken first; `ops.linear` where C is a bias."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    node.get("broadcast")  # until version 6; it is told by the shapes
    turned = {i: _turn for i, name in enumerate(("transA", "transB")) if node.get(name, 0)}

    def step(activation: str | None = None) -> Step:
        def run(a: Array, b: Array, c: Array | None = None) -> Array:
            c = c if c is None or beta == 1 else beta * c
            if alpha == 1 and is_inexact(a) and (c is None or _is_bias(c, b.shape[1])):
                return ops.linear(a, b, c, activation=activation)
            y = _product(a, b)
            y = y if alpha == 1 else alpha * y
            y = y if c is None else y + c
            return y if activation is None else getattr(ops, activation)(y)

        return Step(run, convert=turned, activated=step)

    return step()


def _turn(x: Array) -> Array:
    return namespace(x).permute_dims(x, (1, 0))


def _is_bias(c: Array, outputs: int) -> bool:
    return c.ndim > 0 and c.shape[-1] == outputs and all(n == 1 for n in c.shape[:-1])


def _product(a: Array, b: Array) -> Array:
    return ops.linear(a, b) if is_inexact(a) and b.ndim == 2 and a.ndim else namespace(a).matmul(a, b)


@operator("MatMul")
def matmul(node: Node) -> Any:
    """A product over the last axis, or a stack of them; `ops.linear` by a matrix."""
    return Step(_product, convert={1: _same})


def _same(x: Array) -> Array:
    return x
