"""Which cells each window of a pool sees, and which windows see each cell: tables that the kernels of pooling read."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xpconv.engines.numba.recording import hold
from xpconv.window import Window

Sizes = tuple[int, ...]

RUN = 32  # terms of one running sum; longer sums are compensated sums of such
STREAMS = 8  # neighbouring cells that are read side by side
_UNROLLED = 16  # cells of a window that kernels are compiled for


class Looks(NamedTuple):
    """From places on one side of an axis: the first seen on the other side, how many, and the step between them."""

    first: np.ndarray
    number: np.ndarray
    step: int


class Axis(NamedTuple):
    """One axis of a pool: n cells and m windows."""

    n: int
    m: int
    cells: Looks  # of each window
    windows: Looks  # of each cell
    divisors: np.ndarray  # of each window, a factor
    extent: int  # cells from the first to the last of the longest window


class PoolPlan:
    """The tables of a pool, and what launchers ask of it. The kernels' words are told in `kernels/pool.py`."""

    def __init__(self, given: list[Axis], whole_plane: bool = False) -> None:
        axes = [_adaptive(1, 1)] * (3 - len(given)) + given
        self.out_rows, self.out_row = axes[0].m * axes[1].m, axes[2].m
        self.in_rows, self.in_row = axes[0].n * axes[1].n, axes[2].n
        counts = [int(axis.cells.number.max()) for axis in axes]
        self.cells = math.prod(counts)  # the most that a window sees
        self.meeting = math.prod(int(axis.windows.number.max()) for axis in axes)  # the most windows that see a cell
        self.run = RUN if self.cells > RUN else 0  # of a window's sum, and of a cell's; 0: all of it is one
        self.back_run = RUN if self.meeting > RUN else 0
        streams = self.cells // counts[2] * -(-counts[2] // STREAMS)
        self.wide = self.cells > _UNROLLED and streams <= RUN  # whether sums by whole cells pay, and do not drift
        self.alike = all(axis.cells.number.min() == axis.cells.number.max() for axis in axes)
        # The size of the largest windows, where they are small, and of all, where they are alike, too.
        self.most = (counts[0], counts[1], counts[2]) if self.cells <= _UNROLLED else (0, 0, 0)
        self.fixed = self.most if self.alike else (0, 0, 0)
        # Codes tell the cells of one window apart, or all cells of the plane.
        moduli = [axis.n if whole_plane else min(axis.extent, axis.n) for axis in axes]
        if math.prod(moduli) > 256:
            moduli, whole_plane = [axis.n for axis in axes], True
        self.code_dtype = "int32" if whole_plane else "uint8"
        weights = (moduli[1] * moduli[2], moduli[2], 1)
        self._tables: list[np.ndarray] = []
        words: list[int] = []
        for axis, modulus, weight in zip(axes, moduli, weights, strict=True):
            words += [axis.n, axis.m]
            for looks in (axis.cells, axis.windows):
                words += [self._keep(np.stack([looks.first, looks.number], axis=-1)), looks.step]
            words += [self._keep(np.arange(axis.n) % modulus * weight), self._keep(axis.divisors, np.float64)]
        self._address = self._keep(np.asarray(words))

    @property
    def address(self) -> int:
        """Of the kernels' words."""
        hold(self)
        return self._address

    def _keep(self, table: np.ndarray, dtype: Any = np.int64) -> int:
        self._tables.append(np.ascontiguousarray(table, dtype=dtype))
        return int(self._tables[-1].ctypes.data)


@lru_cache(maxsize=64)
def sliding_plan(window: Window, whole_plane: bool = False) -> PoolPlan:
    """The plan of a max pool."""
    return PoolPlan(_sliding_axes(window), whole_plane)


@lru_cache(maxsize=64)
def averaging_plan(window: Window, count_include_pad: bool, divisor: float | None) -> PoolPlan:
    """The plan of an average pool: divisors are the windows' cells, with or without padding, or what was given."""
    axes = _sliding_axes(window)
    if divisor is not None:
        axes[0] = axes[0]._replace(divisors=np.full(axes[0].m, divisor))
        return PoolPlan(axes)
    for a, (lo, hi) in enumerate(window.padding):
        start, d = np.arange(window.out[a]) * window.stride[a] - lo, window.dilation[a]
        last = np.minimum(start + d * (window.kernel[a] - 1), window.size[a] + hi - 1)  # ceil mode may reach beyond
        divisors = (last - start) // d + 1 if count_include_pad else axes[a].cells.number
        axes[a] = axes[a]._replace(divisors=divisors)
    return PoolPlan(axes)


@lru_cache(maxsize=64)
def adaptive_plan(sizes: Sizes, output_size: Sizes) -> PoolPlan:
    """The plan of an adaptive pool: divisors are the windows' cells."""
    return PoolPlan([_adaptive(n, m) for n, m in zip(sizes, output_size, strict=True)])


def _sliding_axes(window: Window) -> list[Axis]:
    numbers = zip(window.size, window.out, window.kernel, window.stride, window.dilation, window.padding, strict=True)
    return [_sliding(n, m, k, s, d, lo) for n, m, k, s, d, (lo, _) in numbers]


def _sliding(n: int, m: int, k: int, s: int, d: int, lo: int) -> Axis:
    """Window i covers the cells i s - lo + j d, j < k, of which those in 0..n-1 are real."""
    start = np.arange(m) * s - lo
    first = np.where(start >= 0, start, start % d)
    cells = Looks(first, (np.minimum(start + d * (k - 1), n - 1) - first) // d + 1, d)
    # Cell p - lo lies in the windows i where p - i s is a multiple of d up to d (k - 1): each (d / g)-th of a run.
    p, g = np.arange(n) + lo, math.gcd(s, d)
    step = d // g
    least = np.maximum(-((d * (k - 1) - p) // s), 0)
    least = least + (p // g * pow(s // g, -1, step) - least) % step
    count = np.maximum((np.minimum(p // s, m - 1) - least) // step + 1, 0)
    windows = Looks(least, np.where(p % g == 0, count, 0), step)
    return Axis(n, m, cells, windows, np.ones(m), d * (k - 1) + 1)


def _adaptive(n: int, m: int) -> Axis:
    """Window i covers the cells from floor(i n / m) to before ceil((i + 1) n / m); so do cells with windows."""
    cells = _shares(n, m)
    return Axis(n, m, cells, _shares(m, n), cells.number, int(cells.number.max()))


def _shares(n: int, m: int) -> Looks:
    i = np.arange(m)
    return Looks(i * n // m, -(-(i + 1) * n // m) - i * n // m, 1)
