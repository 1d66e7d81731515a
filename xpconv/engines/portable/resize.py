"""Resizing, one axis after the other: each output row is a weighted sum of a few input rows.

The rows and weights are worked out on the host from the sizes alone; the gradient is the same sum with the table
of rows and weights transposed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xpconv.axes import sampled
from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.memory import budget, itemsize
from xpconv.engines.portable.pieces import boxes
from xpconv.engines.portable.sums import RUN, blocks

Sizes = tuple[int, ...]


class _Table(NamedTuple):
    """Row i of the output of an axis is the sum over t of weights[t, i] times row places[t, i] of its input."""

    places: np.ndarray  # (terms, rows)
    weights: np.ndarray  # (terms, rows), 0 where a row has fewer terms; a place is then one that the row has anyway


def resize(x: Array, *, needs: Needs, output_size: Sizes, mode: str, align_corners: bool) -> tuple[Array, Any]:
    """y = x sampled on another grid: (N, *size, C) -> (N, *output_size, C)."""
    sizes = tuple(x.shape[1:-1])
    tables = [_table(n, o, mode, align_corners) for n, o in zip(sizes, output_size, strict=True)]
    return _apply(tables, x), (sizes, output_size, mode, align_corners) if any(needs) else None


def resize_grad(residuals: tuple[Sizes, Sizes, str, bool], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy, weighted, at the cells that were sampled: (N, *output_size, C) -> (N, *size, C)."""
    sizes, output_size, mode, align_corners = residuals
    tables = [_transposed(n, o, mode, align_corners) for n, o in zip(sizes, output_size, strict=True)]
    return (_apply(tables, dy),)


def _apply(tables: list[_Table], x: Array) -> Array:
    """Every axis by its table, some images and rows of the first axis at a time."""
    out = tuple(table.places.shape[1] for table in tables)
    y = namespace(x).empty((x.shape[0], *out, x.shape[-1]), dtype=x.dtype, device=x.device)
    widest = max(math.prod((*out[1:a], *x.shape[a + 1 :])) for a in range(1, len(out) + 1))
    for images, rows in boxes((x.shape[0], out[0]), budget(x) // max(3 * widest * itemsize(x), 1)):
        places = tables[0].places[:, rows]
        first, end = int(places.min()), int(places.max()) + 1  # `take` may copy all that it is given
        part = _along(_Table(places - first, tables[0].weights[:, rows]), x[images, first:end, ...], 1)
        for axis, table in enumerate(tables[1:], start=2):
            part = _along(table, part, axis)
        y[images, rows, ...] = part
    return y


def _along(table: _Table, x: Array, axis: int) -> Array:
    """One axis by its table, in blocks."""
    xp = namespace(x)
    shape = (-1, *(1,) * (x.ndim - 1 - axis))
    total = None
    for run in blocks(table.places.shape[0], RUN):
        block = None
        for places, weights in zip(table.places[run], table.weights[run], strict=True):
            rows = xp.take(x, xp.asarray(places.tolist(), dtype=xp.int64, device=x.device), axis=axis)
            if np.any(weights != 1):
                rows *= xp.reshape(xp.asarray(weights.tolist(), dtype=x.dtype, device=x.device), shape)
            if block is None:
                block = rows
            else:
                block += rows
        total = block if total is None else total + block
    used = np.any(table.weights != 0, axis=0)
    if not np.all(used):  # rows that are no sum at all, whatever stood in the place they name
        flags = xp.reshape(xp.asarray(used.tolist(), device=x.device), shape)
        total = xp.where(flags, total, xp.zeros_like(total))
    return total


@lru_cache(maxsize=512)
def _table(n: int, o: int, mode: str, align_corners: bool) -> _Table:
    """How o rows are read from n."""
    return _Table(*sampled(n, o, mode, align_corners))


@lru_cache(maxsize=512)
def _transposed(n: int, o: int, mode: str, align_corners: bool) -> _Table:
    """The table that takes what `_table` makes of n rows back to them."""
    table = _table(n, o, mode, align_corners)
    terms: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for places, weights in zip(table.places.tolist(), table.weights.tolist(), strict=True):
        for row, (place, weight) in enumerate(zip(places, weights, strict=True)):
            if weight:
                terms[place].append((row, weight))
    most = max(map(len, terms))
    filled = [row + [(row[0][0] if row else 0, 0.0)] * (most - len(row)) for row in terms]
    return _Table(
        np.asarray([[place for place, _ in row] for row in filled]).T,
        np.asarray([[weight for _, weight in row] for row in filled]).T,
    )


PRIMITIVES = {"resize": Primitive(resize, resize_grad)}
