"""Samples of resizing: up, down, to sizes that do not divide, and to or from one cell."""

from __future__ import annotations

import math

from xpconv import ops
from xpconv.parity.bounds import Truth, sums
from xpconv.parity.sample import Case, Sample


def _terms(truth: Truth) -> tuple[int, int]:
    """Two cells an axis, and the rounding of their weights; as many outputs about each cell as the scale says."""
    sizes = list(zip(truth.arrays["x"].shape[1:-1], truth.y.shape[1:-1], strict=True))
    return 4 ** len(sizes), math.prod(2 * -(-o // n) + 2 for n, o in sizes)


_BILINEAR = {"mode": "bilinear"}
_CORNERS = {"mode": "bilinear", "align_corners": True}

RESIZE = Case(
    ops.resize,
    (
        Sample("nearest, up", {"x": (2, 4, 5, 3)}, {"output_size": (8, 7)}),
        Sample("nearest, down", {"x": (2, 9, 8, 3)}, {"output_size": (4, 3)}),
        Sample("nearest-exact, up", {"x": (2, 4, 5, 3)}, {"output_size": (9, 7), "mode": "nearest-exact"}),
        Sample("nearest-exact, down", {"x": (2, 9, 8, 3)}, {"output_size": (4, 3), "mode": "nearest-exact"}),
        Sample("bilinear, up", {"x": (2, 4, 5, 3)}, {"output_size": (8, 13), **_BILINEAR}),
        Sample("bilinear, down", {"x": (2, 9, 8, 3)}, {"output_size": (4, 3), **_BILINEAR}),
        Sample("bilinear, same size", {"x": (2, 4, 5, 3)}, {"output_size": (4, 5), **_BILINEAR}),
        Sample("corners, up", {"x": (2, 4, 5, 3)}, {"output_size": (7, 12), **_CORNERS}),
        Sample("corners, down", {"x": (2, 9, 8, 3)}, {"output_size": (4, 1), **_CORNERS}),
        Sample("from one cell", {"x": (2, 1, 1, 3)}, {"output_size": 4, **_BILINEAR}),
        Sample("1-D, 150 times", {"x": (1, 2, 2)}, {"output_size": 300, **_BILINEAR}),
        Sample("3-D", {"x": (1, 3, 4, 2, 2)}, {"output_size": (5, 3, 4), **_BILINEAR}),
        Sample(
            "complex", {"x": lambda rng: rng.standard_normal((1, 3, 4, 2)) * (1 - 2j)}, {"output_size": 5, **_BILINEAR}
        ),
        Sample("empty batch", {"x": (0, 4, 5, 3)}, {"output_size": 3, **_BILINEAR}),
    ),
    sums(_terms),
    linear=("x",),
)

CASES = (RESIZE,)
