"""Samples of the activations and of softmax: near 0, where the curves bend, and far out, where they are flat."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import ops
from xpconv.parity.bounds import Scales, Truth, ulps
from xpconv.parity.sample import Case, Rng, Sample, complex_normal

_SHAPE = (3, 6, 5, 4)
_FEW = ulps(8)


def _wide(rng: Rng) -> np.ndarray:
    return 8 * rng.standard_normal(_SHAPE)


def _samples(**variants: dict[str, Any]) -> tuple[Sample, ...]:
    """Near and far numbers with the default parameters, and near ones with others."""
    return (
        Sample("near 0", {"x": _SHAPE}),
        Sample("far out", {"x": _wide}),
        Sample("empty", {"x": (0, 6, 4)}),
        *(Sample(name.replace("_", " "), {"x": _wide}, options) for name, options in variants.items()),
    )


def _prelu_scales(truth: Truth) -> Scales:
    """A few ulps of y and dx; the slope's gradient is a sum over what is below 0."""
    below = np.abs(np.minimum(truth.arrays["x"], 0) * truth.dy)
    axes = None if truth.arrays["slope"].size == 1 else tuple(range(below.ndim - 1))
    few = _FEW(truth)
    return Scales(few.y, (few.grads[0], np.sqrt(below.size) * np.sum(below, axis=axes)))


def _line_scales(truth: Truth) -> Scales:
    """A sum that may cancel has the error of its terms."""
    terms = np.abs(truth.options.get("alpha", 1 / 6) * truth.arrays["x"]) + truth.options.get("beta", 0.5)
    return Scales(np.where((truth.y > 0) & (truth.y < 1), terms, 0.0), _FEW(truth).grads)


def _softmax_scales(truth: Truth) -> Scales:
    """A softmax has the relative error of exp(x - max x), which grows with the exponent."""
    x, y, dy, axis = truth.arrays["x"], truth.y, np.abs(truth.dy), truth.options.get("axis", -1)
    depth = 4 + np.max(x, axis=axis, keepdims=True, initial=-np.inf) - x if x.size else x
    total = np.sum(dy, axis=axis, keepdims=True)
    if truth.op is ops.softmax:
        return Scales(depth * y, (depth * y * (dy + total),))
    return Scales(depth, (dy + depth * np.exp(y) * total,))


CASES = (
    Case(ops.relu, _samples(), _FEW, exact=True, kinked=True),
    Case(ops.relu6, _samples(), _FEW, exact=True, kinked=True),
    Case(ops.clip, _samples(both_sides={"min": -1.0, "max": 2.0}, below={"min": 0.5}), _FEW, exact=True, kinked=True),
    Case(ops.leaky_relu, _samples(steep={"slope": 3.0}), _FEW, kinked=True),
    Case(
        ops.prelu,
        (
            Sample("slope of each channel", {"x": _SHAPE, "slope": (4,)}),
            Sample("one slope", {"x": (40, 50, 3), "slope": (1,)}),
            Sample("empty", {"x": (0, 6, 4), "slope": (4,)}),
        ),
        _prelu_scales,
        kinked=True,
    ),
    Case(
        ops.add,
        (
            Sample("sum", {"x": _SHAPE, "other": _SHAPE}),
            Sample("many numbers", {"x": (70001,), "other": (70001,)}),
            Sample("sum relu", {"x": _SHAPE, "other": _SHAPE}, {"activation": "relu"}, fills=False),
            Sample("sum silu", {"x": _SHAPE, "other": _SHAPE}, {"activation": "silu"}, fills=False),
            Sample("empty", {"x": (0, 6, 4), "other": (0, 6, 4)}),
            Sample("complex", {"x": complex_normal(4, 6), "other": complex_normal(4, 6)}),
        ),
        _FEW,
        kinked=True,
    ),
    Case(ops.elu, _samples(alpha={"alpha": 0.3}), _FEW, kinked=True),
    Case(ops.hard_swish, _samples(), _FEW, kinked=True),
    Case(ops.hard_sigmoid, _samples(steeper={"alpha": 0.25, "beta": 0.4}), _line_scales, kinked=True),
    Case(ops.silu, _samples(), _FEW),
    Case(ops.sigmoid, _samples(), _FEW),
    Case(ops.tanh, _samples(), _FEW),
    Case(ops.softplus, _samples(), _FEW),
    Case(ops.gelu, _samples(approximate={"approximate": "tanh"}), ulps(16)),
    Case(ops.softmax, _samples(first_axis={"axis": 0}), _softmax_scales),
    Case(ops.log_softmax, _samples(axis_1={"axis": 1}), _softmax_scales),
)
