"""What takes parts of arrays: slices, elements by index, and where the largest ones are."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import Array, cast, namespace
from xpconv.exchange.onnx.table import Node, Order, operator
from xpconv.exchange.onnx.values import Axes


@operator("Slice", order=Order.AXES, host=(1, 2, 3, 4))
def cut(node: Node) -> Any:
    """Every step-th element between bounds, on some axes; until version 9 the bounds are attributes."""
    given = tuple(node.get(name) for name in ("starts", "ends", "axes"))

    def run(axes: Axes, x: Array, *bounds: np.ndarray | None) -> Array:
        found: list[Any] = [None if b is None else b.tolist() for b in bounds] or list(given)
        starts, ends, on, steps = [*found, None, None][:4]
        flipped, places = [], [slice(None)] * x.ndim
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            place = axes.of(on[i] if on else i)
            cells = range(*slice(start, end, steps[i] if steps else 1).indices(x.shape[place]))
            if cells.step < 0:
                flipped.append(place)  # not every library has negative steps
                cells = cells[::-1]
            places[place] = slice(cells.start, min(max(cells.stop, cells.start), x.shape[place]), cells.step)
        part = x[tuple(places)]
        return namespace(x).flip(part, axis=tuple(flipped)) if flipped else part

    return run


@operator("Gather")
def gather(node: Node) -> Any:
    """The slices along an axis that integers name; negative ones count from the end."""
    axis = node.get("axis", 0)

    def run(x: Array, indices: Array) -> Array:
        xp, place = namespace(x), axis % x.ndim
        taken = xp.take(x, xp.reshape(_counted(indices, x.shape[place]), (-1,)), axis=place)
        return xp.reshape(taken, (*x.shape[:place], *indices.shape, *x.shape[place + 1 :]))

    return run


@operator("GatherElements")
def gather_elements(node: Node) -> Any:
    """An element for every index: that one along the axis, at the index's own place on the others."""
    axis = node.get("axis", 0)

    def run(x: Array, indices: Array) -> Array:
        xp, place = namespace(x), axis % x.ndim
        spans = (slice(0, x.shape[i] if i == place else n) for i, n in enumerate(indices.shape))
        return xp.take_along_axis(x[tuple(spans)], _counted(indices, x.shape[place]), axis=place)

    return run


def _counted(indices: Array, n: int) -> Array:
    """Indices counted from the start, as int64."""
    xp = namespace(indices)
    indices = cast(indices, xp.int64)
    return xp.where(indices < 0, indices + n, indices)


@operator("ArgMax", "ArgMin", order=Order.AXES)
def arg_extreme(node: Node) -> Any:
    """The index of the largest or smallest element along an axis; of equal ones the first, or the last if asked."""
    name = node.op.lower()
    axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), bool(node.get("select_last_index", 0))

    def run(axes: Axes, x: Array) -> Array:
        xp = namespace(x)
        if axes.last and not keep:
            x, axes = xp.permute_dims(x, tuple(axes.of(i) for i in range(x.ndim))), Axes(x.ndim, False)
        place = axes.of(axis)
        found = getattr(xp, name)(xp.flip(x, axis=place) if last else x, axis=place, keepdims=keep)
        return cast(x.shape[place] - 1 - found if last else found, xp.int64)

    return run
