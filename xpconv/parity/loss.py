"""Samples of the losses: each reduction, confident and undecided logits, hard and soft targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import ops
from xpconv.parity.bounds import Scales, Truth
from xpconv.parity.sample import Case, Rng, Sample, Spec


def _labels(*shape: int, classes: int, dtype: str = "int64") -> Spec:
    return lambda rng: rng.integers(0, classes, shape).astype(dtype)


def _confident(rng: Rng) -> np.ndarray:
    return 20 * rng.standard_normal((4, 5, 7))


def _probabilities(rng: Rng) -> np.ndarray:
    return rng.random((3, 5, 4))


def _whole(truth: Truth, one: Any, *slopes: Any) -> Scales:
    """Scales of a reduced loss from those of one loss and of its slopes, a few ulps of each."""
    reduction = truth.options.get("reduction", "mean")
    dy = np.abs(truth.dy)
    if reduction == "none":
        return Scales(4 * one, tuple(None if s is None else 4 * s * _beside(dy, s) for s in slopes))
    count = max(one.size, 1) if reduction == "mean" else 1
    total = np.sum(one) / count
    return Scales(4 * total, tuple(None if s is None else 4 * s * dy / count for s in slopes))


def _beside(dy: Any, slope: Any) -> Any:
    return dy if dy.ndim == slope.ndim else dy[..., None]


def _cross_entropy(truth: Truth) -> Scales:
    """The loss has the absolute error of its logits, counted from their peak; the slope that of a softmax."""
    z = truth.arrays["logits"]
    depth = 4 + np.ptp(z, axis=-1) if z.size else np.zeros(z.shape[:-1])
    return _whole(truth, depth, np.full(z.shape, 1.0), None)


def _squares(truth: Truth) -> Scales:
    difference = np.abs(truth.arrays["y"] - truth.arrays["target"])
    return _whole(truth, difference**2, difference, difference)


def _binary(truth: Truth) -> Scales:
    z, target = np.abs(truth.arrays["logits"]), np.abs(truth.arrays["target"])
    return _whole(truth, 1 + z * (1 + target), 1 + target, z)


def _reductions(arrays: dict[str, Spec]) -> tuple[Sample, ...]:
    empty: dict[str, Spec] = dict.fromkeys(arrays, (0, 3))
    return (
        *(Sample(reduction, arrays, {"reduction": reduction}) for reduction in ("mean", "sum", "none")),
        Sample("empty", empty),
    )


CASES = (
    Case(
        ops.softmax_cross_entropy,
        (
            *(
                Sample(r, {"logits": (6, 10), "labels": _labels(6, classes=10)}, {"reduction": r})
                for r in ("mean", "sum", "none")
            ),
            Sample(
                "label smoothing",
                {"logits": _confident, "labels": _labels(4, 5, classes=7, dtype="int32")},
                {"reduction": "none", "label_smoothing": 0.1},
            ),
            Sample("confident", {"logits": _confident, "labels": _labels(4, 5, classes=7, dtype="uint8")}),
            Sample("many samples", {"logits": (5000, 3), "labels": _labels(5000, classes=3)}),
            Sample("many classes", {"logits": (3, 2000), "labels": _labels(3, classes=2000)}),
            Sample("empty", {"logits": (0, 10), "labels": _labels(0, classes=10)}),
        ),
        _cross_entropy,
    ),
    Case(
        ops.mse,
        (*_reductions({"y": (3, 5, 4), "target": (3, 5, 4)}), Sample("many", {"y": (6000,), "target": (6000,)})),
        _squares,
    ),
    Case(ops.binary_cross_entropy_with_logits, _reductions({"logits": (3, 5, 4), "target": _probabilities}), _binary),
)
