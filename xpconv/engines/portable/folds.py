"""What the pools share: combining the cells of windows one axis at a time, the real ones among them, and winners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

from xpconv.backend import Array, cast, namespace
from xpconv.engines.portable.memory import Box
from xpconv.engines.portable.pieces import extent, landing, taps, window_boxes
from xpconv.engines.portable.scatter import sharing
from xpconv.engines.portable.sums import RUN, blocks, plus
from xpconv.window import Window


def fold(part: Array, window: Window, box: Box, combine: Callable[[list[Array]], Array]) -> Array:
    """Combine the cells of every window of a box, axis after axis: (n, *cells, C) -> (n, *box, C)."""
    for axis, (m, s, d, k) in _axes(window, box):
        part = combine([part[_along(axis, j * d, m, s)] for j in range(k)])
    return part


def spread(part: Array, window: Window, box: Box) -> Array:
    """The transpose of `fold` with `total`, axis before axis: (n, *box, C) -> (n, *cells, C)."""
    xp = namespace(part)
    for axis, (m, s, d, k) in reversed(_axes(window, box)):
        if k == s == 1:
            continue
        shape = (*part.shape[:axis], (m - 1) * s + d * (k - 1) + 1, *part.shape[axis + 1 :])
        cells: Array = None
        for run in blocks(k, RUN if sharing(window)[axis - 1] > RUN else k):
            block = xp.zeros(shape, dtype=part.dtype, device=part.device)
            for j in range(run.start, run.stop):
                block[_along(axis, j * d, m, s)] += part
            cells = plus(cells, block)
        part = cells
    return part


def _axes(window: Window, box: Box) -> list[tuple[int, tuple[int, int, int, int]]]:
    return list(enumerate(zip(extent(box)[1:], window.stride, window.dilation, window.kernel, strict=True), start=1))


def _along(axis: int, start: int, count: int, step: int) -> tuple[Any, ...]:
    """Index that takes ``count`` cells of one axis and everything of the others."""
    return (*(slice(None),) * axis, slice(start, start + (count - 1) * step + 1, step), ...)


def total(cells: Sequence[Array]) -> Array:
    """The sum of equally shaped arrays, in blocks."""
    sums = []
    for run in blocks(len(cells), RUN):
        block, *rest = cells[run]
        if rest:
            block = block + rest[0]
        for cell in rest[1:]:
            block += cell
        sums.append(block)
    return sums[0] if len(sums) == 1 else total(sums)


def largest(cells: Sequence[Array]) -> Array:
    """The elementwise maximum; nan where any is nan."""
    return reduce(namespace(cells[0]).maximum, cells)


def pool_boxes(x: Array, window: Window) -> Iterator[Box]:
    """Boxes whose padded input and three arrays of the output's size fit the budget."""
    return window_boxes(x, window, in_channels=x.shape[-1], scratch=3 * x.shape[-1])


def outputs(x: Array, window: Window, dtype: Any = None) -> Array:
    """Room for one value per window: (N, *out, C)."""
    shape = (x.shape[0], *window.out, x.shape[-1])
    return namespace(x).empty(shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def real(window: Window, box: Box) -> list[tuple[int, Box, Box]]:
    """For each cell of the kernel that falls on the input: its number, where it lands, and from which windows."""
    places = ((t, landing(tap, window, box)) for t, tap in enumerate(taps(window)))
    return [(t, *place) for t, place in places if place is not None]


def where_won(won: Array, dy: Array, tame: bool) -> Array:
    """dy where the flag is set, else 0; ``tame`` if all of dy is `finite`."""
    if tame:
        return dy * cast(won, dy.dtype)  # ten times faster than NumPy's `where`, but 0 times inf is nan
    xp = namespace(dy)
    return xp.where(won, dy, xp.zeros((), dtype=dy.dtype, device=dy.device))
