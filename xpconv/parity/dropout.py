"""Samples of dropout: the mask is exact, and what stays is one product."""

from __future__ import annotations

from xpconv import ops
from xpconv.parity.bounds import ulps
from xpconv.parity.sample import Case, Sample

CASES = (
    Case(
        ops.dropout,
        (
            Sample("a tenth", {"x": (3, 6, 5, 4)}, {"rate": 0.1, "key": (0, 0)}),
            Sample("half, a rest left over", {"x": (3, 7, 5)}, {"rate": 0.5, "key": (2**64 - 1, 2**40 + 1)}),
            Sample("nothing", {"x": (4, 5)}, {"rate": 0.0, "key": (3, 1)}),
            Sample("empty", {"x": (0, 5)}, {"rate": 0.5, "key": (3, 1)}),
        ),
        ulps(1),
        linear=("x",),
    ),
)
