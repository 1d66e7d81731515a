"""What padding and resizing share: tables of what each cell reads on each axis, and the two ways to go by them.

There are always three spatial axes; those that an array lacks have one cell. What a cell reads is the product of what
it reads on each axis: nothing, one cell, or several with weights. A gradient goes by the same tables, transposed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xpconv.axes import padded, sampled
from xpconv.engines.numba.arrays import empty, place, streams, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import CACHE_LINE, LINES_BYTES, TERM_BLOCK
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.pooling import row_tasks
from xpconv.engines.numba.recording import hold
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run
from xpconv.errors import dtype_name
from xpconv.settings import current

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

_LONGEST = 2**18  # cells of an axis on either side, since plans are tables of them
_PLANS = 64  # that are kept
_NARROW = 4  # numbers of the shortest vectors


class Axis(NamedTuple):
    """Runs of places, and the cells that they read: place p of a run reads those of its first place, moved on."""

    n: int  # cells
    length: np.ndarray  # how many places each run has, and all have
    begin: np.ndarray  # where the terms of each run begin, and how many there are
    cells: np.ndarray  # of each term
    weights: np.ndarray


class Plan:
    """The tables of three axes as kernels read them (`kernels/sampling.py`), and what launchers ask of them."""

    def __init__(self, axes: list[Axis], dtype: str) -> None:
        self.row = axes[2].n  # cells of a line
        self.out = tuple(int(axis.length[-1]) for axis in axes)
        lines, self.along = math.prod(_most(axis) for axis in axes[:2]), _most(axes[2])
        self.lines = lines  # the most lines of cells that a line of places reads; `along`: cells of one of them
        self.mixed = lines > 1 or any((axis.weights != 1).any() for axis in axes[:2])  # whether lines are summed first
        self.pairs = len(axes[2].begin) == self.out[2] + 1 and bool((np.diff(axes[2].begin) == 2).all())
        kinds: tuple[Any, ...] = (np.int64, np.int64, np.int64, dtype)
        tables, words = [], []
        for axis in axes:
            kept = [np.ascontiguousarray(table, kind) for table, kind in zip(axis[1:], kinds, strict=True)]
            words += [axis.n, len(axis.length) - 1, *map(place, kept)]
            tables += kept
        self._tables = [*tables, np.asarray(words)]

    @property
    def address(self) -> int:
        """Of the words that say where the tables are."""
        hold(self)
        return place(self._tables[-1])


def _most(axis: Axis) -> int:
    return int(np.diff(axis.begin).max(initial=0))


@lru_cache(maxsize=_PLANS)
def padding_plan(sizes: Sizes, padding: Pairs, mode: str, back: bool, dtype: str = "float64") -> Plan:
    """What each place of a padded array copies; ``back``: what each cell gets of the gradient."""
    tables = []
    for n, (before, after) in zip(sizes, padding, strict=True):
        cells = padded(n, before, after, mode)[None]
        tables.append((n, cells, (cells >= 0).astype(float)))
    return _plan(tables, back, dtype)


@lru_cache(maxsize=_PLANS)
def resizing_plan(sizes: Sizes, out: Sizes, mode: str, align_corners: bool, back: bool, dtype: str = "float64") -> Plan:
    """What each place of a resized array reads; ``back``: what each cell gets of the gradient."""
    pairs = zip(sizes, out, strict=True)
    return _plan([(n, *sampled(n, o, mode, align_corners)) for n, o in pairs], back, dtype)


def _plan(tables: list[tuple[int, np.ndarray, np.ndarray]], back: bool, dtype: str) -> Plan:
    """Of what each place reads on each axis: cells and weights, (terms, places)."""
    alone = (1, np.zeros((1, 1), int), np.ones((1, 1)))
    tables = [alone] * (3 - len(tables)) + tables
    return Plan([_axis(*table, back=back, along=i == 2) for i, table in enumerate(tables)], dtype)


def _axis(n: int, cells: np.ndarray, weights: np.ndarray, back: bool, along: bool) -> Axis:
    """``along``: places in a row that read cells in a row are one run; where places read two cells, all do, the second
    with weight 0 perhaps, since kernels take pairs faster."""
    m = cells.shape[1]
    pairs = along and not back and len(weights) == 2 and bool(weights[1].any())
    places, terms = np.nonzero(np.ones_like(weights.T) if pairs else weights.T)
    cells, weights = cells[terms, places], weights[terms, places]
    if back:
        order = np.lexsort((places, cells))
        n, m, places, cells, weights = m, n, cells[order], places[order], weights[order]
    count = np.bincount(places, minlength=m)
    new = np.ones(m, bool)
    if along and m:
        before = np.maximum(np.arange(len(places)) - count[places], 0)  # the same term of the place before
        broken = (cells != cells[before] + 1) | (weights != weights[before])
        new[1:] = (count[1:] != count[:-1]) | (np.bincount(places, broken, minlength=m) > 0)[1:]
    kept = new[places]
    begin = np.concatenate([[0], np.cumsum(count[new])])
    length = np.diff(np.flatnonzero(new), append=m)
    return Axis(n, np.append(length, m), begin, cells[kept], weights[kept])


def copied(x: np.ndarray, plan: Plan, value: Any = 0) -> np.ndarray:
    """The one cell of x that each place reads, the value where it reads none: (N, *read, C) -> (N, *out, C)."""
    y = empty((x.shape[0], *plan.out[3 - len(x.shape[1:-1]) :], x.shape[-1]), x.dtype)
    if y.size:
        pattern = np.full(CACHE_LINE // x.itemsize, value, x.dtype)
        rows = x.shape[0] * plan.out[0] * plan.out[1]
        each, tasks, threads = row_tasks(rows, plan.out[2] * x.shape[-1])
        past = streams(x, y, CACHE_LINE // x.itemsize)
        words = (place(x), place(y), plan.address, place(pattern), x.shape[-1] * x.itemsize, rows, each, past)
        run(address("sampling", "copies"), tasks, *words, threads=threads)
    return y


def summed(x: np.ndarray, plan: Plan) -> np.ndarray:
    """The weighted sum of what each place reads of x: (N, *read, C) -> (N, *out, C)."""
    channels, dtype = x.shape[-1], dtype_name(x.dtype)
    y = empty((x.shape[0], *plan.out[3 - len(x.shape[1:-1]) :], channels), x.dtype)
    if y.size:
        rows = x.shape[0] * plan.out[0] * plan.out[1]
        each, tasks, threads = row_tasks(rows, max(plan.row * plan.lines, plan.out[2] * plan.along) * channels)
        wide, narrow = _lanes(dtype, channels)
        scratch = _scratch(plan, channels * x.itemsize, channels >= narrow)
        threads = min(threads, max(current().workspace_limit // scratch, 1))
        words = (place(x), place(y), plan.address, channels, rows, each, streams(x, y, wide), plan.pairs)
        with borrowed(threads * scratch) as lent:
            run(address("sampling", "sums", dtype, wide, narrow), tasks, *words, lent, scratch, threads=threads)
    return y


@lru_cache(maxsize=256)
def _lanes(dtype: str, channels: int) -> tuple[int, int]:
    """How many numbers the kernel's wide vectors hold, four registers, and its narrow ones: no more than a pixel, so
    that its last ones can be taken with some before them; but four at least, of which some go to waste."""
    lanes = machine().lanes(dtype)
    narrow = lanes
    while narrow > max(channels, _NARROW):
        narrow //= 2
    return 4 * lanes, narrow


def _scratch(plan: Plan, pixel: int, whole: bool) -> int:
    """Bytes that a thread needs: for a table of the lines that it adds up, and for their sums, or a line of pixels that
    are no ``whole`` vectors, with room behind it."""
    line = -(-plan.row * pixel // CACHE_LINE) + 1
    return LINES_BYTES + (line * CACHE_LINE if plan.mixed or not whole else 0)


def unfit(x: np.ndarray, out: Sizes) -> str | None:
    """Why kernels cannot take x to an array of such sizes, or `None`; integers are copied, whatever they are."""
    longest = max(*x.shape[1:-1], *out)
    if longest > _LONGEST:
        return f"goes along at most {_LONGEST} cells, not {longest}"
    return None if x.dtype.kind in "biu" else unsupported(x)


def unsummable(x: np.ndarray, *plans: Plan) -> str | None:
    """Why kernels cannot add up x or its gradient by such plans, or `None`."""
    for plan in plans:
        most = max(plan.lines, plan.along)
        if most > TERM_BLOCK:
            return f"adds up at most {TERM_BLOCK} lines, and cells of a line, not {most}"
        if _scratch(plan, x.shape[-1] * x.itemsize, x.shape[-1] >= _NARROW) > current().workspace_limit:
            return "adds up lines in more scratch memory than workspace_limit allows"
    return None
