"""Samples of padding: every mode, borders wider than the axis, and axes without any."""

from __future__ import annotations

import math

from xpconv import ops
from xpconv.parity.bounds import Truth, sums
from xpconv.parity.sample import Case, Sample


def _terms(truth: Truth) -> tuple[int, int]:
    """A copy is exact; the gradient of a cell adds up the dy of at most so many copies."""
    sizes = zip(truth.arrays["x"].shape[1:-1], truth.y.shape[1:-1], strict=True)
    return 1, math.prod(-(-o // n) + 1 for n, o in sizes)


PAD = Case(
    ops.pad,
    (
        Sample("zeros", {"x": (2, 4, 5, 3)}, {"padding": 2}),
        Sample("a value", {"x": (2, 4, 5, 3)}, {"padding": ((0, 2), (3, 1)), "value": -1.5}),
        Sample("nothing", {"x": (2, 4, 5, 3)}, {"padding": 0}),
        Sample("reflect", {"x": (2, 4, 5, 3)}, {"padding": ((3, 1), (0, 2)), "mode": "reflect"}),
        Sample("reflect, twice", {"x": (1, 3, 2, 2)}, {"padding": (5, 4), "mode": "reflect"}),
        Sample("edge", {"x": (2, 4, 5, 3)}, {"padding": (2, 1), "mode": "edge"}),
        Sample("wrap", {"x": (2, 4, 5, 3)}, {"padding": ((1, 2), (3, 0)), "mode": "wrap"}),
        Sample("wrap, twice", {"x": (1, 3, 2, 2)}, {"padding": 5, "mode": "wrap"}),
        Sample("1-D", {"x": (2, 6, 3)}, {"padding": ((2, 3),), "mode": "reflect"}),
        Sample("3-D", {"x": (1, 2, 3, 4, 2)}, {"padding": (1, 2, 0), "mode": "edge"}),
        Sample(
            "complex", {"x": lambda rng: rng.standard_normal((1, 3, 4, 2)) * (1 + 2j)}, {"padding": 1, "mode": "wrap"}
        ),
        Sample("empty batch", {"x": (0, 4, 5, 3)}, {"padding": 1, "mode": "reflect"}),
    ),
    sums(_terms),
    exact=True,
)

CASES = (PAD,)
