"""Which way a convolution goes: the one that moves the fewest bytes, a launch counting as what is moved meanwhile.

To reckon it takes the host longer than to launch it, so it is done once for each kind of call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from xpconv.backend import Array
from xpconv.engines.cupy import shifted
from xpconv.engines.cupy.arrays import computed_in, is_half
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.gemm import fast, terms_of_a_block
from xpconv.engines.cupy.shifted import Shifts
from xpconv.engines.cupy.windows import outs, taps
from xpconv.settings import current

_LAUNCH = 8 * 2**20  # bytes that a large GPU's memory moves while a launch takes its turn (about 4 µs at 2 TB/s)
_MOST_CELLS = 65535


class Way(NamedTuple):
    """An algorithm, what it costs, and in words how it would go about it."""

    name: str
    mebibytes: float
    launches: int
    pieces: int

    @property
    def cost(self) -> float:
        return self.mebibytes * 2**20 + self.launches * _LAUNCH

    def __str__(self) -> str:
        pieces = f", {self.pieces} piece{'s' * (self.pieces != 1)}"
        return f"{self.name}: about {self.mebibytes:.3g} MiB moved in {self.launches} launches{pieces}"


class _Kind(NamedTuple):
    """What an array is without its numbers."""

    shape: tuple[int, ...]
    dtype: Any


def forward(x: Array, sizes: Sizes) -> Way:
    """The way of the sums for each output."""
    return _reckoned(_forward, x, sizes)


def backward(dy: Array, sizes: Sizes) -> Way:
    """The way of the sums for each cell of the input."""
    return _reckoned(_backward, dy, sizes)


def weights(x: Array, sizes: Sizes) -> Way:
    """The way of the sums for each weight."""
    return _reckoned(_weights, x, sizes)


def _reckoned(of: Callable[..., Way], x: Array, sizes: Sizes) -> Way:
    return _once(of, _Kind(x.shape, x.dtype), sizes, current().workspace_limit, fast())


@functools.lru_cache(maxsize=4096)
def _once(of: Callable[..., Way], x: Any, sizes: Sizes, *settings: Any) -> Way:
    """The way, under the settings that are in force."""
    return of(x, sizes)


def _forward(x: Array, sizes: Sizes) -> Way:
    rows = x.shape[0] * outs(sizes.window)
    if _depthwise(sizes):
        return _by_thread(x, sizes, rows)
    ways = [_columns(x, sizes, rows)]
    if not sizes.plain and shifted.possible(sizes.window):
        ways.append(_shifted(x, Shifts.forward(sizes.window), sizes, sizes.channels, sizes.outputs))
    return min(ways, key=lambda way: way.cost)


def _backward(dy: Array, sizes: Sizes) -> Way:
    rows = dy.shape[0] * outs(sizes.window)
    if _depthwise(sizes):
        return _by_thread(dy, sizes, rows)
    ways = [_shares(dy, sizes, rows)]
    if not sizes.plain and shifted.possible(sizes.window) and (shifts := Shifts.backward(sizes.window)).possible:
        ways.append(_shifted(dy, shifts, sizes, sizes.outputs, sizes.channels))
    return min(ways, key=lambda way: way.cost)


def _weights(x: Array, sizes: Sizes) -> Way:
    rows = x.shape[0] * outs(sizes.window)
    if _depthwise(sizes):
        return _by_thread(x, sizes, rows)
    item, count = x.dtype.itemsize, sizes.terms * sizes.outputs * computed_in(x.dtype).itemsize
    blocks = max(-(-rows // terms_of_a_block(rows, x)), 1)
    moved = rows * (sizes.outputs + sizes.step * (1 if sizes.plain else 3)) * item + 2 * blocks * count
    return _way("products of columns", moved, 3 + (not sizes.plain), 1)


def _depthwise(sizes: Sizes) -> bool:
    """Of one channel a group, and no more kernel cells than a grid's third axis takes."""
    return 1 < sizes.groups == sizes.channels and taps(sizes.window) <= _MOST_CELLS


def _way(name: str, moved: float, launches: int, pieces: int) -> Way:
    return Way(name, moved / 2**20, launches * pieces, pieces)


def _by_thread(x: Array, sizes: Sizes, rows: int) -> Way:
    return _way("depthwise", rows * (sizes.channels + sizes.outputs) * x.dtype.itemsize, 1, 1)


def _sums(x: Array, cells: int, outputs: int, products: int) -> int:
    """Bytes of reading and writing sums that several products are added to, and of the pass that rounds them."""
    passes = 2 * products - 1 + (1 if is_half(x) else 0)
    return cells * outputs * computed_in(x.dtype).itemsize * passes


def _columns(x: Array, sizes: Sizes, rows: int) -> Way:
    products = -(-sizes.terms // terms_of_a_block(sizes.terms, x))
    columns = rows * sizes.step * x.dtype.itemsize * (1 if sizes.plain else 3)  # read x, write and read columns
    pieces = max(-(-rows // sizes.rows_at_once(x)), 1)
    name = "one product" if sizes.plain and products == 1 else "products of columns"
    return _way(name, columns + _sums(x, rows, sizes.outputs, products), products + 1 + (not sizes.plain), pieces)


def _shares(dy: Array, sizes: Sizes, rows: int) -> Way:
    if sizes.plain:
        turned = sizes._replace(channels=sizes.outputs, outputs=sizes.channels)
        return _columns(dy, turned, rows)
    terms = sizes.outputs // sizes.groups
    products = -(-terms // terms_of_a_block(terms, dy))
    shares = _sums(dy, rows, sizes.step, products) + rows * sizes.step * computed_in(dy.dtype).itemsize
    pieces = max(-(-dy.shape[0] // sizes.images_at_once(dy)), 1)
    return _way("products of columns", shares, products + 1, pieces)


def _shifted(x: Array, shifts: Shifts, sizes: Sizes, terms: int, outputs: int) -> Way:
    each = terms // sizes.groups
    products = taps(sizes.window) * -(-each // terms_of_a_block(each, x))
    cells = x.shape[0] * math.prod(shifts.held)
    copied = 2 * cells * terms * x.dtype.itemsize if shifts.cut(x) else 0
    read = cells * terms * x.dtype.itemsize * taps(sizes.window)
    pieces = max(-(-x.shape[0] // shifted.images_at_once(x, shifts, outputs)), 1)
    moved = copied + read + _sums(x, cells, outputs, products) + cells * outputs * x.dtype.itemsize
    return _way("shifted products", moved, products + 1 + 2 * shifts.cut(x), pieces)
