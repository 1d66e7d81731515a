"""Resize and Upsample: on each axis a weighted sum of a few cells, whose places and weights ONNX defines.

Where that is what `ops.resize` does, it does it; other coordinates, cubic interpolation, antialiasing and cropping go
through tables of taps, (out, taps) for each axis, made on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import Array, backend_of, cast, namespace
from xpconv.exchange.onnx.operators import taps
from xpconv.exchange.onnx.operators.shape import axes_of
from xpconv.exchange.onnx.table import Node, Order, operator
from xpconv.exchange.onnx.values import Axes

# (mode, coordinates, rounding): the mode of `ops.resize` that means the same, and its align_corners.
SAME = {
    ("nearest", "asymmetric", "floor"): ("nearest", False),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", False),
    ("linear", "half_pixel", ""): ("bilinear", False),
    ("linear", "align_corners", ""): ("bilinear", True),
}


@operator("Resize", order=Order.LAST, host=(1, 2, 3))
def resize(node: Node) -> Any:
    """By scales or to sizes, in every mode that ONNX has."""
    style = taps.Style.of(node)
    policy = node.one_of("keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    node.get("axes")

    def run(x: Array, *bounds: np.ndarray | None) -> Array:
        roi, scales, sizes = _bounds(node, bounds)
        on = [axis % x.ndim for axis in axes_of(node, None) or range(x.ndim)]
        axes = Axes(x.ndim, x.ndim > 2)
        shape = [x.shape[axes.of(axis)] for axis in on]
        plans = _plans(shape, roi, scales, sizes, policy, style.crops)
        return _resized(x, {axes.of(axis): plan for axis, plan in zip(on, plans, strict=True)}, style)

    return run


def _bounds(node: Node, bounds: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Region, scales and sizes; an empty one is not there. Version 10 has the scales alone."""
    given = [None, *bounds] if node.version < 11 else list(bounds)
    return [None if b is None or b.size == 0 else b for b in (*given, None, None, None)[:3]]


def _plans(shape: list[int], roi: Any, scales: Any, sizes: Any, policy: str, crops: bool) -> list[taps.Axis]:
    """The size and scale that each axis gets."""
    rank = len(shape)
    if scales is None:
        scales = [float(out) / n for out, n in zip(sizes, shape, strict=True)]
        if policy != "stretch":
            scale = min(scales) if policy == "not_larger" else max(scales)
            scales, sizes = [scale] * rank, [int(np.floor(scale * n + 0.5)) for n in shape]
    elif sizes is None:
        spans = [float(roi[i + rank] - roi[i]) if crops else 1.0 for i in range(rank)]
        sizes = [
            int(np.floor(np.float32(n) * np.float32(s) * np.float32(c)))
            for n, s, c in zip(shape, scales, spans, strict=True)
        ]
    crop = [(float(roi[i]), float(roi[i + rank])) if crops else (0.0, 1.0) for i in range(rank)]
    return [
        taps.Axis(n, int(out), float(scale), span)
        for n, out, scale, span in zip(shape, sizes, scales, crop, strict=True)
    ]


def _resized(x: Array, plans: dict[int, taps.Axis], style: taps.Style) -> Array:
    changed = {i: a for i, a in plans.items() if style.crops or a.out != a.size or a.scale != 1}
    halves = style.coordinates == "pytorch_half_pixel" and all(a.out > 1 for a in changed.values())
    ours = SAME.get((style.mode, "half_pixel" if halves else style.coordinates, style.rounding))
    exact = all(a.out / a.size == a.scale for a in changed.values())
    if ours and exact and not style.antialias and 3 <= x.ndim <= 5 and not changed.keys() & {0, x.ndim - 1}:
        sizes = [changed[i].out if i in changed else x.shape[i] for i in range(1, x.ndim - 1)]
        return ops.resize(x, sizes, mode=ours[0], align_corners=ours[1])
    wide = namespace(x).float64 if style.mode != "nearest" else x.dtype
    y, place = cast(x, wide), backend_of(x)
    for i, axis in changed.items():
        cells, weights = style.table(axis)
        y = _gathered(y, i, place.asarray(cells), None if weights is None else place.asarray(weights))
    if style.crops:
        y = _extrapolated(y, changed, style, place)
    return cast(y, x.dtype)


def _gathered(x: Array, axis: int, cells: Array, weights: Array | None) -> Array:
    """Σ over the taps of weight times cell, along one axis; without weights there is one tap."""
    xp = namespace(x)
    shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    if weights is None:
        return xp.take(x, cells[:, 0], axis=axis)
    parts = [xp.take(x, cells[:, k], axis=axis) * xp.reshape(weights[:, k], shape) for k in range(cells.shape[1])]
    return sum(parts[1:], start=parts[0])


def _extrapolated(y: Array, plans: dict[int, taps.Axis], style: taps.Style, place: Any) -> Array:
    """The value for outside, where a crop reaches beyond the input."""
    xp = place.xp
    for i, axis in plans.items():
        outside = place.asarray(style.outside(axis))
        mask = xp.reshape(outside, tuple(-1 if k == i else 1 for k in range(y.ndim)))
        y = xp.where(mask, xp.full_like(y, style.extrapolation), y)
    return y


@operator("Upsample", order=Order.LAST, host=(1,))
def upsample(node: Node) -> Any:
    """By scales, from asymmetric coordinates; until version 8 the scales are an attribute."""
    mode = node.one_of("mode", "nearest", ("nearest", "linear"))
    style, old = taps.Style(mode, "asymmetric", "floor" if mode == "nearest" else ""), node.get("scales")

    def run(x: Array, scales: np.ndarray | None = None) -> Array:
        axes = Axes(x.ndim, x.ndim > 2)
        shape = [x.shape[axes.of(i)] for i in range(x.ndim)]
        plans = _plans(shape, None, old if scales is None else scales.tolist(), None, "stretch", False)
        return _resized(x, {axes.of(i): plan for i, plan in enumerate(plans)}, style)

    return run
