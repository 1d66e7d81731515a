"""Convolution at stride 1 without columns: for each kernel cell one product of the whole padded input, shifted.

Seen as rows (N · padded cells, C), the input under one kernel cell of every window is the input itself, some rows on.
So the products of all cells are added up in a grid of the padded size; what falls on its margins is computed and left.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import cupy

from xpconv.backend import Array
from xpconv.engines.cupy.arrays import computed_in
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.finish import Output
from xpconv.engines.cupy.gemm import Matrix, product
from xpconv.engines.cupy.windows import taps
from xpconv.settings import current
from xpconv.window import Window


class Shifts(NamedTuple):
    """How an array is padded, and how far on each kernel cell reads it."""

    before: tuple[int, ...]  # cells of padding
    held: tuple[int, ...]  # cells with padding
    out: tuple[int, ...]  # windows
    offsets: tuple[int, ...]  # in rows, for each kernel cell in row-major order

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def forward(cls, window: Window) -> Shifts:
        before = tuple(lo for lo, _ in window.padding)
        return cls(before, window.padded, window.out, _offsets(window, window.padded, backward=False))

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def backward(cls, window: Window) -> Shifts:
        """Of the input gradient, which reads dy with the kernel turned around."""
        reach = tuple(d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True))
        before = tuple(r - lo for r, (lo, _) in zip(reach, window.padding, strict=True))
        held = tuple(n + r for n, r in zip(window.size, reach, strict=True))
        return cls(before, held, window.size, _offsets(window, held, backward=True))

    @property
    def possible(self) -> bool:
        return min(self.before) >= 0

    def cut(self, x: Array) -> bool:
        """Whether the array has to be copied: padded, or cut where windows end before it does."""
        return any(self.before) or tuple(x.shape[1:-1]) != self.held

    def padded(self, x: Array) -> Array:
        """(n, *size, C) -> (n, *held, C)."""
        if not self.cut(x):
            return x
        made = cupy.zeros((x.shape[0], *self.held, x.shape[-1]), dtype=x.dtype)
        real = [max(min(n, h - b), 0) for n, h, b in zip(x.shape[1:-1], self.held, self.before, strict=True)]
        into = (slice(b, b + n) for b, n in zip(self.before, real, strict=True))
        made[(slice(None), *into, slice(None))] = x[(slice(None), *(slice(0, n) for n in real), slice(None))]
        return made


def possible(window: Window) -> bool:
    """Whether products can be shifted: windows one cell apart."""
    return all(s == 1 for s in window.stride)


def _offsets(window: Window, held: tuple[int, ...], backward: bool) -> tuple[int, ...]:
    steps = [math.prod(held[axis + 1 :]) for axis in range(window.rank)]
    along = [
        [step * d * (k - 1 - j if backward else j) for j in range(k)]
        for step, d, k in zip(steps, window.dilation, window.kernel, strict=True)
    ]
    return tuple(map(sum, itertools.product(*along)))


def fprop(x: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """y = Σ over the cells of x, shifted, @ w[cell]: (N, *size, C) -> (N, *out, O)."""
    _run(x, Shifts.forward(sizes.window), _of_cells(w, sizes), sizes.groups, output)


def dgrad(dy: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """dx = Σ over the cells of dy, shifted the other way, @ w[cell].T: (N, *out, O) -> (N, *size, C)."""
    turned = [cell.T for cell in _of_cells(w, sizes)]
    _run(dy, Shifts.backward(sizes.window), turned, sizes.groups, output)


def _of_cells(w: Array, sizes: Sizes) -> list[Matrix]:
    """The weights of each kernel cell, for each group (C / groups, O / groups)."""
    each, outputs = sizes.channels // sizes.groups, sizes.outputs // sizes.groups
    cells = range(taps(sizes.window))
    return [Matrix(w, each, outputs, sizes.outputs, each * sizes.outputs * t, outputs) for t in cells]


def images_at_once(x: Array, shifts: Shifts, outputs: int) -> int:
    """Images whose padded copy and grid of sums fit the workspace limit; at least one."""
    each = outputs * computed_in(x.dtype).itemsize + (x.shape[-1] * x.dtype.itemsize if shifts.cut(x) else 0)
    return max(current().workspace_limit // max(each * math.prod(shifts.held), 1), 1)


def _run(x: Array, shifts: Shifts, weights: list[Matrix], groups: int, output: Output) -> None:
    outputs, channels = output.y.shape[-1], x.shape[-1]
    for image, images in _pieces(x.shape[0], images_at_once(x, shifts, outputs)):
        held = shifts.padded(x[image : image + images])
        cells = images * math.prod(shifts.held)
        rows = cells - max(shifts.offsets)  # of the last window nothing beyond its last cell is read
        z = output.room(cells)
        into = Matrix(z, rows, outputs // groups, outputs, apart=outputs // groups)
        for t, offset in enumerate(shifts.offsets):
            under = Matrix(held, rows, channels // groups, channels, start=offset * channels, apart=channels // groups)
            product(under, weights[t], into, batch=groups, add=t > 0)
        windows = math.prod(shifts.out)
        output.finish(z, image * windows, (image + images) * windows, (shifts.out, shifts.held))


def _pieces(images: int, at_once: int) -> Iterator[tuple[int, int]]:
    for image in range(0, images, at_once):
        yield image, min(at_once, images - image)
