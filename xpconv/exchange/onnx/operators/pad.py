"""Pad, of any axis and in both directions."""

from __future__ import annotations

import math
from typing import Any

from xpconv import ops
from xpconv.backend import Array, namespace
from xpconv.exchange.onnx.operators.window import pairs
from xpconv.exchange.onnx.table import Node, Order, operator
from xpconv.exchange.onnx.values import Axes


@operator("Pad", order=Order.AXES, host=(1, 2, 3))
def pad(node: Node) -> Any:
    """`ops.pad`; negative padding cuts cells off. Until version 10 the padding is an attribute."""
    mode = node.one_of("mode", "constant", ("constant", "reflect", "edge", "wrap"))
    old_pads, old_value = node.get("pads"), node.get("value", 0.0)

    def run(axes: Axes, x: Array, pads: Any = None, value: Any = None, on: Any = None) -> Array:
        widths = pairs(old_pads if pads is None else pads.tolist())
        number = old_value if value is None else value.item()
        places = [axes.of(int(axis)) for axis in (range(x.ndim) if on is None else on)]
        amounts = dict(zip(places, widths, strict=True))
        cuts = [slice(max(-before, 0), n + min(after, 0)) for n, (before, after) in _each(x, amounts)]
        x = x[tuple(cuts)]
        added = {i: (max(before, 0), max(after, 0)) for i, (before, after) in amounts.items()}
        return _padded(x, {i: width for i, width in added.items() if any(width)}, mode, number)

    return run


def _each(x: Array, amounts: dict[int, tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    return [(n, amounts.get(i, (0, 0))) for i, n in enumerate(x.shape)]


def _padded(x: Array, added: dict[int, tuple[int, int]], mode: str, value: Any) -> Array:
    """Some axes padded: spatial ones of an image at once, others as the middle one of three."""
    options = {"mode": mode, "value": value} if mode == "constant" else {"mode": mode}
    if 3 <= x.ndim <= 5 and not added.keys() & {0, x.ndim - 1}:
        widths = [added.get(i, (0, 0)) for i in range(1, x.ndim - 1)]
        return ops.pad(x, widths, **options) if added else x
    xp = namespace(x)
    for axis, width in added.items():
        before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        flat = xp.reshape(x, (math.prod(before), n, math.prod(after)))
        x = xp.reshape(ops.pad(flat, [width], **options), (*before, n + sum(width), *after))
    return x
