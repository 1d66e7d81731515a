"""Samples of the linear layer: sums long and short, rows under any leading axes."""

from __future__ import annotations

import math

from xpconv import ops
from xpconv.parity.bounds import Truth, sums
from xpconv.parity.sample import Case, Sample, Spec, complex_normal


def _terms(truth: Truth) -> tuple[int, ...]:
    """Terms in each sum of y, dx, dw and db."""
    w, rows = truth.arrays["w"], math.prod(truth.y.shape[:-1])
    return w.shape[0] + 1, w.shape[1], rows, rows


def _call(x: tuple[int, ...], out: int) -> dict[str, Spec]:
    return {"x": x, "w": (x[-1], out), "b": (out,)}


CASES = (
    Case(
        ops.linear,
        (
            Sample("rows", _call((5, 7), 3)),
            Sample("without bias", {"x": (5, 7), "w": (7, 3)}),
            Sample("leading axes", _call((2, 3, 4, 6), 5)),
            Sample("one input and one output", _call((4, 1), 1)),
            Sample("long sum", _call((4, 3000), 5)),
            Sample("many outputs", _call((3, 5), 700)),
            Sample("many rows", _call((4000, 3), 4)),
            Sample("empty batch", _call((0, 7), 3)),
            Sample("bias (1, 1, O)", {"x": (2, 5, 4), "w": (4, 3), "b": (1, 1, 3)}),
            Sample("relu", _call((6, 20), 5), {"activation": "relu"}, fills=False),
            Sample("softplus", _call((6, 20), 5), {"activation": "softplus"}, fills=False),
            Sample("silu", _call((6, 20), 5), {"activation": "silu"}, fills=False),
            Sample("complex", {"x": complex_normal(4, 6), "w": complex_normal(6, 3), "b": complex_normal(3)}),
        ),
        sums(_terms),
        linear=("x", "w"),
    ),
)
