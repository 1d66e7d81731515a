"""Where the terms of a convolution are: `Window`s turned into the taps and strides that kernels walk over.

Everything has three spatial axes here; lower ranks get axes of size 1 in front. A direction is described by *passes*:
an output has one; an input gradient has one for each phase of its strides, since cells i and i + stride are reached by
the same kernel cells.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from xpconv.window import Window

_MOST_SIDE_BY_SIDE = 7  # weights that a register tile can hold beside its sums

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pass:
    """One walk over pixels: output pixel q lies at ``start + q · spacing`` and reads input cell ``q · step + tap``.

    A pass equals only itself, so that caches find it fast; it is made once for each window.
    """

    start: Triple
    spacing: Triple
    count: Triple  # pixels
    step: Triple
    taps: np.ndarray  # int64 (taps, 4): the cell's offset on each axis, and the first of its rows of weights
    run: int  # neighbouring cells on the last axis that a tap stands for
    rank: int  # spatial axes that there really are
    # A pixel may stand for up[0] · up[1] neighbours on the last two axes, all phases of an input gradient at once: on
    # an axis, the r-th of them meets the q-th cell under the box of taps by tap up · q - r + shift.
    up: tuple[int, int] = (1, 1)
    shift: tuple[int, int] = (0, 0)
    outputs: tuple[int, int] | None = None  # on those axes, where they are not the pixels

    @property
    def cells(self) -> int:
        """How many cells are summed over at a pixel."""
        return len(self.taps) * self.run

    @functools.cached_property
    def box(self) -> Triple | None:
        """How many taps there are on each axis, if all of them are neighbours, in row-major order."""
        offsets = self.taps[:, :3]
        if self.run > 1 or not len(offsets):
            return None
        count = offsets[-1] - offsets[0] + 1
        if (count < 1).any() or count.prod() != len(offsets):
            return None
        if not np.array_equal(offsets - offsets[0], list(np.ndindex(*count))):
            return None
        return int(count[0]), int(count[1]), int(count[2])

    @functools.cached_property
    def rows(self) -> tuple[int, ...]:
        """The first row of weights of each tap."""
        return tuple(self.taps[:, 3].tolist())

    @property
    def pixels(self) -> int:
        return math.prod(self.count)

    @functools.cached_property
    def side_by_side(self) -> int:
        """How many taps at a time are neighbours in a row, with evenly spaced rows of weights; 1: they are not."""
        offsets, rows = self.taps[:, :3], np.diff(self.taps[:, 3])
        breaks = np.flatnonzero((np.diff(offsets, axis=0) != (0, 0, 1)).any(axis=1)) + 1
        run = int(breaks[0]) if len(breaks) else max(len(offsets), 1)
        even = len(offsets) % run == 0 and np.array_equal(breaks, np.arange(run, len(offsets), run))
        inner = np.delete(rows, breaks - 1)
        return run if even and run <= _MOST_SIDE_BY_SIDE and (inner == inner[:1]).all() else 1


# A tap that is the pixel's own cell, with the first row of weights.
ONE_TAP = np.zeros((1, 4), dtype=np.int64)


def triple(values: tuple[Any, ...], fill: Any) -> Any:
    """Three entries, filled up in front."""
    return (fill,) * (3 - len(values)) + tuple(values)


@lru_cache(maxsize=1024)
def output_pass(window: Window, rows: int, fused: bool) -> Pass:
    """The pass of a convolution's output; ``rows`` of weights for each kernel cell."""
    kernel, dilation = triple(window.kernel, 1), triple(window.dilation, 1)
    starts = tuple(-lo for lo, _ in triple(window.padding, (0, 0)))
    run = kernel[2] if fused else 1
    cells = itertools.product(range(kernel[0]), range(kernel[1]), range(0, kernel[2], run))
    taps = [
        (*(s + j * d for s, j, d in zip(starts, cell, dilation, strict=True)), _flat(cell, kernel) * rows)
        for cell in cells
    ]
    count, step = triple(window.out, 1), triple(window.stride, 1)
    return Pass((0, 0, 0), (1, 1, 1), count, step, _table(taps), run, window.rank)


@lru_cache(maxsize=1024)
def input_passes(window: Window, rows: int, fused: bool) -> tuple[Pass, ...]:
    """The passes of an input gradient, over weights that are packed with their kernel cells in reverse order.

    Cell i is reached by window (i + lo - j·d) / s through kernel cell j, where that is a whole number.
    """
    kernel, stride, dilation = triple(window.kernel, 1), triple(window.stride, 1), triple(window.dilation, 1)
    size, padding = triple(window.size, 1), triple(window.padding, (0, 0))
    total = math.prod(kernel)
    passes = []
    for phase in itertools.product(*(range(min(s, n)) for s, n in zip(stride, size, strict=True))):
        axes = []
        for r, k, s, d, (lo, _) in zip(phase, kernel, stride, dilation, padding, strict=True):
            axes.append([((r + lo - j * d) // s, j) for j in reversed(range(k)) if (r + lo - j * d) % s == 0])
        run = kernel[2] if fused else 1
        axes[2] = axes[2][::run]
        taps = []
        for cell in itertools.product(*axes):
            at = total - 1 - _flat(tuple(j for _, j in cell), kernel)
            taps.append((*(offset for offset, _ in cell), at * rows))
        count = [-(-(n - r) // s) for n, r, s in zip(size, phase, stride, strict=True)]
        start, pixels = (phase[0], phase[1], phase[2]), (count[0], count[1], count[2])
        passes.append(Pass(start, stride, pixels, (1, 1, 1), _table(taps), run, window.rank))
    return tuple(passes)


@lru_cache(maxsize=1024)
def joint_pass(window: Window, rows: int) -> Pass | None:
    """The passes of an input gradient as one whose pixels stand for all phases of the strides on the last two axes.

    There is none where taps are apart, or strides of the first axis have phases of their own. Taps are the box of all
    kernel cells from the first cell of the gradient that a pixel sees on; `Pass.up` says which meets which.
    """
    kernel, stride = triple(window.kernel, 1), triple(window.stride, 1)
    size, padding = triple(window.size, 1), triple(window.padding, (0, 0))
    if stride[1] * stride[2] == 1 or stride[0] > 1 or any(d > 1 for d in window.dilation):
        return None
    # Tap t is kernel cell k - 1 - t, and meets the cell (r + lo - (k - 1 - t)) / s where that is whole.
    ahead = [k - 1 - lo for k, (lo, _) in zip(kernel, padding, strict=True)]
    firsts = [-(a // s) for a, s in zip(ahead, stride, strict=True)]
    taps = [
        (*(first + t for first, t in zip(firsts, cell, strict=True)), _flat(cell, kernel) * rows)
        for cell in itertools.product(*(range(k) for k in kernel))
    ]
    count0, count1, count2 = (-(-n // s) for n, s in zip(size, stride, strict=True))
    up, shift = stride[1:], (ahead[1] % stride[1], ahead[2] % stride[2])
    one = (1, 1, 1)
    return Pass((0, 0, 0), one, (count0, count1, count2), one, _table(taps), 1, window.rank, up, shift, size[1:])


@lru_cache(maxsize=1024)
def line_pass(rows: int) -> Pass:
    """The pass of a linear layer: each row by itself."""
    return Pass((0, 0, 0), (1, 1, 1), (1, 1, rows), (1, 1, 1), ONE_TAP, 1, 1)


def _flat(cell: tuple[int, ...], kernel: Triple) -> int:
    return (cell[0] * kernel[1] + cell[1]) * kernel[2] + cell[2]


def _table(taps: list[tuple[int, ...]]) -> np.ndarray:
    table = np.array(taps, dtype=np.int64).reshape(-1, 4)
    table.flags.writeable = False
    return table
