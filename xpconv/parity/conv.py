"""Samples of the convolutions: every option, the odd sizes, and the sums long enough for rounding to show."""

from __future__ import annotations

import math

from xpconv import ops
from xpconv.parity.bounds import Truth, sums
from xpconv.parity.sample import Case, Sample, Spec, complex_normal


def _conv_terms(truth: Truth) -> tuple[int, ...]:
    """Terms in each sum of y, dx, dw, db and the residual's gradient."""
    w, cells = truth.arrays["w"], math.prod(truth.y.shape[:-1])
    taps = math.prod(w.shape[:-2])
    per_group = w.shape[-1] // truth.options.get("groups", 1)
    return taps * w.shape[-2] + 1, taps * per_group, cells, cells, 1


def _transposed_terms(truth: Truth) -> tuple[int, ...]:
    w, x = truth.arrays["w"], truth.arrays["x"]
    taps, cells = math.prod(w.shape[:-2]), math.prod(x.shape[:-1])
    per_group = w.shape[-1] // truth.options.get("groups", 1)
    return taps * per_group + 1, taps * w.shape[-2], cells, math.prod(truth.y.shape[:-1]), 1


def _large(*shape: int) -> Spec:
    return lambda rng: 100 * rng.standard_normal(shape)


def _call(x: Spec, w: tuple[int, ...], bias: bool = True) -> dict[str, Spec]:
    return {"x": x, "w": w, **({"b": w[-1:]} if bias else {})}


def _complex_call(x: tuple[int, ...], w: tuple[int, ...], b: int) -> dict[str, Spec]:
    return {"x": complex_normal(*x), "w": complex_normal(*w), "b": complex_normal(b)}


CONV = Case(
    ops.conv,
    (
        Sample("3x3", _call((2, 6, 7, 3), (3, 3, 3, 5))),
        Sample("without bias", _call((2, 6, 7, 3), (3, 3, 3, 5), bias=False), {"padding": 1}),
        Sample("1x1", _call((2, 5, 4, 6), (1, 1, 6, 3))),
        Sample("1x1, stride 2", _call((2, 5, 4, 6), (1, 1, 6, 3)), {"stride": 2}),
        Sample("stride beyond the kernel", _call((2, 9, 8, 2), (2, 2, 2, 3)), {"stride": 3}),
        Sample("stride 2, a rest left over", _call((1, 8, 9, 2), (3, 3, 2, 3)), {"stride": (2, 3), "padding": 1}),
        Sample("asymmetric padding", _call((2, 5, 6, 2), (3, 2, 2, 3)), {"padding": ((2, 0), (1, 3))}),
        Sample("same, even kernel", _call((2, 5, 6, 2), (2, 4, 2, 3)), {"padding": "same"}),
        Sample("same, stride 2", _call((2, 7, 6, 2), (3, 3, 2, 3)), {"padding": "same", "stride": 2}),
        Sample("same_lower, even kernel", _call((2, 5, 6, 2), (2, 4, 2, 3)), {"padding": "same_lower", "stride": 2}),
        Sample("dilation", _call((2, 9, 8, 2), (3, 2, 2, 3)), {"dilation": (2, 3), "padding": (2, 1)}),
        Sample(
            "dilation and stride", _call((1, 11, 12, 2), (3, 3, 2, 3)), {"dilation": 2, "stride": (3, 2), "padding": 3}
        ),
        Sample("groups", _call((2, 6, 5, 6), (3, 3, 2, 9)), {"groups": 3, "padding": 1}),
        Sample("depthwise", _call((2, 6, 5, 4), (3, 3, 1, 4)), {"groups": 4, "padding": 1}),
        Sample("depthwise, multiplier 2, stride 2", _call((2, 7, 6, 3), (3, 3, 1, 6)), {"groups": 3, "stride": 2}),
        Sample("1-D", _call((3, 17, 4), (5, 4, 6)), {"padding": 2}),
        Sample("1-D causal", _call((2, 12, 3), (3, 3, 4)), {"padding": "causal", "dilation": 2}),
        Sample("1-D depthwise, 200 cells", _call((1, 230, 2), (200, 1, 2)), {"groups": 2}),
        Sample("one channel, 31x31", _call((1, 32, 33, 1), (31, 31, 1, 1))),
        Sample("depthwise, 31x31", _call((1, 32, 33, 2), (31, 31, 1, 2)), {"groups": 2}),
        Sample("3-D", _call((2, 4, 5, 6, 2), (2, 3, 2, 2, 3)), {"padding": 1, "stride": (1, 2, 1)}),
        Sample("one cell", _call((1, 1, 1, 1), (1, 1, 1, 1))),
        Sample("padding wider than the image", _call((1, 2, 1, 2), (3, 3, 2, 2)), {"padding": 3}),
        Sample("long sum", _call((1, 5, 5, 300), (3, 3, 300, 4)), {"padding": 1}),
        Sample("3x3, 48 channels", _call((1, 7, 8, 48), (3, 3, 48, 48)), {"padding": 1}),
        Sample("3x3, 64 channels", _call((2, 6, 6, 64), (3, 3, 64, 64)), {"padding": ((2, 1), (0, 1))}),
        Sample("long weight gradient", _call((1, 60, 50, 1), (3, 3, 1, 2)), {"padding": 1}),
        Sample("empty batch", _call((0, 6, 7, 3), (3, 3, 3, 5)), {"padding": 1}),
        Sample("empty axis in padding", _call((2, 6, 0, 16), (3, 3, 16, 16)), {"padding": 2}),
        Sample("bias (1, 1, 1, O)", {"x": (1, 4, 4, 2), "w": (2, 2, 2, 3), "b": (1, 1, 1, 3)}),
        Sample(
            "residual and tanh",
            {"x": (2, 5, 4, 3), "w": (3, 3, 3, 4), "b": (4,), "residual": (2, 5, 4, 4)},
            {"padding": 1, "activation": "tanh"},
            fills=False,
        ),
        Sample("silu", _call((2, 5, 4, 3), (3, 3, 3, 4)), {"activation": "silu"}, fills=False),
        Sample("relu", _call((2, 5, 4, 3), (3, 3, 3, 4)), {"activation": "relu"}, fills=False),
        # exp() of such sums is infinite in float32, which activations written as their formulas turn into inf or nan.
        *(
            Sample(f"{name} of large sums", _call(_large(2, 5, 4, 3), (3, 3, 3, 4)), {"activation": name}, fills=False)
            for name in ("silu", "softplus")
        ),
        Sample(
            "complex",
            {"x": complex_normal(2, 5, 6, 2), "w": complex_normal(3, 2, 2, 3), "b": complex_normal(3)},
            {"stride": 2},
        ),
    ),
    sums(_conv_terms),
    linear=("x", "w"),
)

CONV_TRANSPOSE = Case(
    ops.conv_transpose,
    (
        Sample("2x2, stride 2", {"x": (2, 4, 3, 5), "w": (2, 2, 3, 5), "b": (3,)}, {"stride": 2}),
        Sample("3x3, padding 1", {"x": (2, 4, 5, 3), "w": (3, 3, 2, 3)}, {"padding": 1}),
        Sample(
            "output padding",
            {"x": (2, 4, 5, 3), "w": (3, 3, 2, 3), "b": (2,)},
            {"stride": 3, "padding": 1, "output_padding": (2, 1)},
        ),
        Sample("stride beyond the kernel", {"x": (1, 3, 4, 2), "w": (2, 2, 3, 2), "b": (3,)}, {"stride": 4}),
        Sample("same", {"x": (1, 4, 3, 2), "w": (3, 4, 3, 2)}, {"stride": 2, "padding": "same"}),
        Sample(
            "same, stride beyond the kernel",
            {"x": (1, 4, 3, 2), "w": (2, 1, 3, 2), "b": (3,)},
            {"stride": 3, "padding": "same_lower"},
        ),
        Sample("dilation", {"x": (1, 4, 5, 2), "w": (3, 2, 3, 2)}, {"dilation": 2, "output_padding": 1}),
        Sample("groups", {"x": (2, 4, 3, 6), "w": (3, 3, 2, 6), "b": (4,)}, {"groups": 2, "stride": 2}),
        Sample("depthwise", {"x": (2, 4, 3, 4), "w": (3, 3, 1, 4)}, {"groups": 4, "padding": 1}),
        Sample("1-D", {"x": (2, 7, 3), "w": (4, 2, 3), "b": (2,)}, {"stride": 2, "padding": 1}),
        Sample(
            "residual, stride 2",
            {"x": (2, 4, 3, 5), "w": (3, 3, 19, 5), "b": (19,), "residual": (2, 8, 6, 19)},
            {"stride": 2, "padding": "same"},
        ),
        Sample("residual, two channels", {"x": (2, 4, 5, 3), "w": (3, 3, 2, 3), "b": None, "residual": (2, 6, 7, 2)}),
        Sample(
            "residual, depthwise",
            {"x": (2, 4, 3, 4), "w": (3, 3, 1, 4), "b": None, "residual": (2, 4, 3, 4)},
            {"groups": 4, "padding": 1},
        ),
        Sample(
            "residual, 64 channels",
            {"x": (1, 5, 4, 64), "w": (3, 3, 64, 64), "b": None, "residual": (1, 5, 4, 64)},
            {"padding": 1},
        ),
        Sample(
            "residual, 1x1",
            {"x": (2, 5, 4, 6), "w": (1, 1, 4, 6), "b": (4,), "residual": (2, 5, 4, 4)},
        ),
        Sample(
            "residual, cells that no window reaches",
            {"x": (1, 3, 2, 2), "w": (1, 2, 3, 2), "b": None, "residual": (1, 7, 5, 3)},
            {"stride": 3},
        ),
        Sample("one channel, 31x31", {"x": (1, 16, 32, 1), "w": (31, 31, 1, 1)}),
        Sample("1-D, 200 cells", {"x": (1, 220, 1), "w": (200, 1, 1)}),
        Sample("3-D", {"x": (1, 3, 4, 2, 2), "w": (2, 3, 2, 3, 2)}, {"stride": (2, 1, 2)}),
        Sample("empty batch", {"x": (0, 4, 3, 5), "w": (2, 2, 3, 5), "b": (3,)}, {"stride": 2}),
        Sample(
            "complex",
            {"x": complex_normal(1, 3, 4, 2), "w": complex_normal(2, 2, 3, 2), "b": complex_normal(3)},
            {"stride": 2},
        ),
    ),
    sums(_transposed_terms),
    linear=("x", "w"),
)

CASES = (CONV, CONV_TRANSPOSE)
