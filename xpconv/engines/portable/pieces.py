"""Cutting work into boxes that fit a budget, the input cells under a box of windows, and long sums in blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from xpconv.backend import Array, namespace
from xpconv.settings import current
from xpconv.window import Window

# Terms that one running sum may take: longer sums are sums of such blocks, so that rounding grows with the
# number of blocks and not of terms (a constant image is the worst case: every rounding has the same sign).
BLOCK = 128

# Scratch per piece for host arrays: near the second-level cache of two cores, yet long enough products for a threaded
# BLAS; measured best, or within the noise of it, among 0.25 to 32 MiB on 3x3 convolutions of 64 to 512 channels.
_CACHE = 4 * 2**20

Box = tuple[slice, ...]


def budget(x: Array) -> int:
    """Bytes of scratch that one piece may take: the user's limit, and the cache where the host computes."""
    limit = current().workspace_limit
    return min(limit, _CACHE) if isinstance(x, np.ndarray) else limit


def itemsize(x: Array) -> int:
    """Bytes of one element (array-api-strict's dtypes have no `itemsize`)."""
    xp = namespace(x)
    if xp.isdtype(x.dtype, "bool"):
        return 1
    info = xp.iinfo(x.dtype) if xp.isdtype(x.dtype, "integral") else xp.finfo(x.dtype)
    return info.bits // 8 * (2 if xp.isdtype(x.dtype, "complex floating") else 1)


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


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Consecutive slices of at most ``size``."""
    for i in range(0, n, size):
        yield slice(i, min(i + size, n))


def as_rows(x: Array) -> Array:
    """(..., C) -> (rows, C)."""
    return namespace(x).reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


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


def masked(mask: Array, x: Array) -> Array:
    """x where the mask holds, else 0."""
    if isinstance(x, np.ndarray):
        with np.errstate(invalid="ignore"):
            y = x * mask  # on masks without a pattern 15 times faster than np.where
            if np.isfinite(np.sum(y)):  # but an inf or nan that was masked out would show
                return y
    xp = namespace(x)
    return xp.where(mask, x, xp.zeros((), dtype=x.dtype, device=x.device))


def block_sum(x: Array) -> Array:
    """Sum over all axes but the last, in blocks of blocks: (..., C) -> (C,)."""
    return axis_sum(as_rows(x), 0)[0, :]


def axis_sum(x: Array, axis: int) -> Array:
    """Sum along one axis, which stays with size 1, in blocks of blocks."""
    xp, before = namespace(x), (slice(None),) * axis
    while x.shape[axis] > BLOCK:
        n = x.shape[axis]
        whole = n // BLOCK * BLOCK
        shape = (*x.shape[:axis], whole // BLOCK, BLOCK, *x.shape[axis + 1 :])
        parts = xp.sum(xp.reshape(x[(*before, slice(0, whole), ...)], shape), axis=axis + 1, dtype=x.dtype)
        if whole < n:
            rest = xp.sum(x[(*before, slice(whole, n), ...)], axis=axis, keepdims=True, dtype=x.dtype)
            parts = xp.concat([parts, rest], axis=axis)
        x = parts
    return xp.sum(x, axis=axis, keepdims=True, dtype=x.dtype)


def axes_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum along several axes, which stay with size 1, in blocks of blocks."""
    for axis in axes:
        x = axis_sum(x, axis)
    return x


def within(reduced: Array, box: Box) -> Box:
    """Where a box of x lies in an array whose summed axes have size 1."""
    return tuple(slice(0, 1) if n == 1 else s for n, s in zip(reduced.shape, box, strict=True))


class RunningSum:
    """A sum that grows box by box; Kahan's compensation keeps its error from growing with their number."""

    def __init__(self, like: Array, shape: tuple[int, ...]) -> None:
        xp = namespace(like)
        self.total = xp.zeros(shape, dtype=like.dtype, device=like.device)
        self._lost = xp.zeros(shape, dtype=like.dtype, device=like.device)

    def add(self, box: Box, part: Array) -> None:
        """Add the sums of one box, whose summed axes have size 1."""
        at = within(self.total, box)
        part = part - self._lost[at]
        total = self.total[at] + part
        self._lost[at] = (total - self.total[at]) - part
        self.total[at] = total
