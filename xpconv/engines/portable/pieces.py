"""Cutting work into boxes that fit a budget, and the input cells under a box of windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

from xpconv.backend import Array, namespace
from xpconv.engines.portable.memory import Box, budget, itemsize
from xpconv.engines.portable.sums import blocks
from xpconv.window import Window


def boxes(shape: tuple[int, ...], cells: int) -> Iterator[Box]:
    """Cut a grid into boxes of at most ``cells`` (at least one), whole along the last axes as far as they fit."""
    steps, room = [], max(cells, 1)
    for n in reversed(shape):
        steps.append(max(1, min(n, room)))
        room = room // n if n else 1
    steps.reverse()
    ranges = (range(0, n, step) for n, step in zip(shape, steps, strict=True))
    for starts in itertools.product(*ranges):
        yield tuple(slice(i, min(i + step, n)) for i, step, n in zip(starts, steps, shape, strict=True))


def window_boxes(x: Array, window: Window, *, in_channels: int, scratch: int) -> Iterator[Box]:
    """Boxes of the windows ``(N, *out)`` whose padded input and ``scratch`` elements per window fit the budget."""
    shape, limit = (x.shape[0], *window.out), budget(x) // itemsize(x)
    cells = max(1, limit // max(scratch, 1))
    while cells > 1:
        images, *steps = extent(next(boxes(shape, cells), (slice(0, 0),) * len(shape)))
        under_box = images * in_channels
        for m, s, d, k in zip(steps, window.stride, window.dilation, window.kernel, strict=True):
            under_box *= (m - 1) * s + d * (k - 1) + 1
        if under_box + images * math.prod(steps) * scratch <= limit:
            break
        cells = cells * 3 // 4
    return boxes(shape, cells)


def extent(box: Box) -> tuple[int, ...]:
    """Cells of a box along each axis."""
    return tuple(s.stop - s.start for s in box)


def taps(window: Window) -> list[tuple[int, ...]]:
    """Every cell of the kernel, in row-major order, as offsets into the padded input."""
    return list(itertools.product(*(range(0, k * d, d) for k, d in zip(window.kernel, window.dilation, strict=True))))


def covered(x: Array, window: Window, box: Box, fill: float | int = 0) -> Array:
    """The padded input under the windows of a box ``(N, *out)``: (n, *cells, C), a view where nothing is padded.

    Window ``box.start`` of each axis begins at its cell 0, so a tap's offsets index it directly.
    """
    images, *spatial = box
    inside, before, cells = [], [], []
    for s, n, stride, d, k, (lo, _) in zip(
        spatial, window.size, window.stride, window.dilation, window.kernel, window.padding, strict=True
    ):
        start = s.start * stride - lo
        stop = (s.stop - 1) * stride - lo + d * (k - 1) + 1
        real = slice(min(max(start, 0), n), max(min(stop, n), 0))
        inside.append(real)
        before.append(max(-start, 0))
        cells.append(stop - start)
    part = x[(images, *inside, slice(None))]
    if tuple(part.shape[1:-1]) == tuple(cells):
        return part
    padded = namespace(x).full((part.shape[0], *cells, x.shape[-1]), fill, dtype=x.dtype, device=x.device)
    padded[(slice(None), *(slice(b, b + m) for b, m in zip(before, part.shape[1:-1], strict=True)), slice(None))] = part
    return padded


def under(tap: tuple[int, ...], window: Window, box: Box, channels: slice = slice(None)) -> Box:
    """Index that takes, from what `covered` gave, the cell ``tap`` of every window of the box."""
    spatial = (slice(t, t + (m - 1) * s + 1, s) for t, m, s in zip(tap, extent(box)[1:], window.stride, strict=True))
    return (slice(None), *spatial, channels)


def landing(tap: tuple[int, ...], window: Window, box: Box) -> tuple[Box, Box] | None:
    """Where cell ``tap`` of the windows of a box lies in the *unpadded* input.

    Returns the index into the input ``(N, *size, C)`` and the index of the windows whose cell is real into
    ``(n, *box, C)``; `None` when every one falls on padding.
    """
    images, *spatial = box
    into, of = [images], [slice(None)]
    for t, s, n, stride, (lo, _) in zip(tap, spatial, window.size, window.stride, window.padding, strict=True):
        at = t - lo  # window i holds input cell i * stride + at
        first = max(s.start, -(at // stride))  # smallest i with i * stride + at >= 0
        last = min(s.stop - 1, (n - 1 - at) // stride)
        if first > last:
            return None
        into.append(slice(first * stride + at, last * stride + at + 1, stride))
        of.append(slice(first - s.start, last + 1 - s.start))
    return (*into, slice(None)), (*of, slice(None))


def cut(x: Array) -> Iterator[Box]:
    """Boxes of x small enough for the few arrays of their size that a formula makes."""
    return boxes(tuple(x.shape), budget(x) // (10 * itemsize(x)))


def row_runs(rows: Array, scratch: int) -> Iterator[slice]:
    """Runs of whole rows whose ``scratch`` elements each fit the budget."""
    return blocks(rows.shape[0], max(1, budget(rows) // (itemsize(rows) * max(scratch, 1))))


def elementwise(function: Callable[..., Array], *arrays: Array) -> Array:
    """An elementwise function of arrays of one shape, box by box, so that what it makes on its way stays small."""
    x, xp = arrays[0], namespace(arrays[0])
    if not x.ndim:  # NumPy makes scalars of arrays without axes
        return xp.reshape(function(*(xp.reshape(a, (1,)) for a in arrays)), ())
    places = list(cut(x))
    if len(places) == 1:
        return function(*arrays)
    y = xp.empty(tuple(x.shape), dtype=x.dtype, device=x.device)
    for box in places:
        y[box] = function(*(a[box] for a in arrays))
    return y
