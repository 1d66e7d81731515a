"""The transpose of looking through windows: adding up what they give back to the cells they share."""

from __future__ import annotations

import math
from collections.abc import Iterator

from xpconv.backend import Array, namespace
from xpconv.engines.portable.memory import Box
from xpconv.engines.portable.pieces import extent
from xpconv.engines.portable.sums import RUN, RunningSum
from xpconv.window import Window


class Scatter:
    """Sums (N, *size, C) of the shares that windows give to their cells, kernel cell by kernel cell, box by box.

    Where few windows share a cell, shares are added as they come. Otherwise those of `RUN` kernel cells at a time are
    added up for the cells under the box, and then to the rest.
    """

    def __init__(self, like: Array, window: Window, channels: int, places: list[Box]) -> None:
        self._crowded = math.prod(sharing(window)) > RUN
        terms = meeting(window, places) * -(-math.prod(window.kernel) // RUN) if self._crowded else 1
        self._sums = RunningSum(like, (like.shape[0], *window.size, channels), terms)
        self.total = self._sums.total
        self._window, self._places = window, places
        self._under: Box = ()  # the cells under the box at hand
        self._block: Array = None  # what they were given and the total was not yet
        self._given = 0  # kernel cells that gave it

    def boxes(self) -> Iterator[Box]:
        """The boxes of windows, each of which is to give its shares before the next is asked for."""
        for box in self._places:
            self._under, _ = real_cells(self._window, box)
            yield box
            self._flush()

    def add(self, into: Box, share: Array) -> None:
        """Add shares where they belong in the total."""
        if not self._crowded:
            self.total[into] += share
            return
        if self._block is None:
            shape = (*extent(self._under[:-1]), self.total.shape[-1])
            self._block = namespace(share).zeros(shape, dtype=share.dtype, device=share.device)
        *cells, channels = into
        at = (slice(c.start - u.start, c.stop - u.start, c.step) for c, u in zip(cells, self._under, strict=False))
        self._block[(*at, channels)] += share

    def given(self, cells: int = 1) -> None:
        """Take note that as many kernel cells more have given all their shares of this box."""
        self._given += cells
        if self._given + cells > RUN:
            self._flush()

    def _flush(self) -> None:
        if self._block is not None:
            self._sums.add(self._under, self._block)
        self._block, self._given = None, 0


def sharing(window: Window) -> tuple[int, ...]:
    """The most windows along each axis that share a cell."""
    numbers = zip(window.out, window.kernel, window.stride, window.dilation, strict=True)
    return tuple(min(m, -(-k * math.gcd(s, d) // s)) for m, k, s, d in numbers)


def meeting(window: Window, places: list[Box]) -> int:
    """The most boxes, all cut like the first, that share a cell."""
    if not places:
        return 0
    numbers = zip(window.out, window.kernel, window.stride, window.dilation, extent(places[0])[1:], strict=True)
    return math.prod(min(-(-m // step), -(-(d * (k - 1) // s) // step) + 1) for m, k, s, d, step in numbers)


def real_cells(window: Window, box: Box) -> tuple[Box, Box]:
    """Where the cells under a box of windows that are no padding lie in the input, and among the cells."""
    images, *spatial = box
    into, of = [images], [slice(None)]
    for b, n, s, d, k, (lo, _) in zip(
        spatial, window.size, window.stride, window.dilation, window.kernel, window.padding, strict=True
    ):
        start = b.start * s - lo
        first = min(max(start, 0), n)
        end = max(min((b.stop - 1) * s - lo + d * (k - 1) + 1, n), first)
        into.append(slice(first, end))
        of.append(slice(first - start, end - start))
    return (*into, slice(None)), (*of, slice(None))
