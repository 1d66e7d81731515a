"""Running `kernels.winograd`: convolutions, as outputs and as input gradients, by Winograd's forms."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import empty, kept, place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, walk
from xpconv.engines.numba.fields import PLANE_PAD, TABLE, Weighing, Winograd
from xpconv.engines.numba.forms import Axis, Form, products, saves
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import Channels, Room, Work, channels, panel_of
from xpconv.errors import dtype_name

_TILE_ROWS = 8  # register tiles in a task, fewer where that leaves only a few tasks
_LEAST_TASKS = 16  # counting blocks of output channels
_MOST = TABLE // 8  # cells of a patch, and terms
_FEW = 32  # channels whose products take no longer than their tiles take to come from memory
_NEAR = 2**21  # bytes of x and y together that may be in the cores' own caches


def form_of(work: Work, large: bool = False) -> Form | None:
    """The form for a pass on whole vectors of channels, of one group, if there is one that saves products.

    The last two axes of several taps have two outputs at a time, or four; the taps of others are more terms.
    """
    lanes, box = machine().lanes(work.dtype), work.p.box
    if (
        box is None
        or math.prod(box) > _MOST
        or work.groups > 1
        or work.in_channels % lanes
        or work.out_channels % lanes
    ):
        return None
    axes: list[Axis] = []
    for taps, step in zip(reversed(box), reversed(work.p.step), strict=True):
        wide = sum(axis.outputs > 1 for axis in axes) < 2 and saves(taps, step)
        axes.insert(0, Axis((4 if large else 2) if wide else 1, taps, step))
    form = Form((axes[0], axes[1], axes[2]))
    if form.cells > _MOST or (large and any(axis.outputs > 1 and (axis.taps, axis.step) != (3, 1) for axis in axes)):
        return None
    return form if form.terms < form.outputs * form.taps and form.terms <= _MOST else None


class Cut(NamedTuple):
    """A pass in tasks of some tiles of output pixels."""

    form: Form
    split: Channels
    chunk: int  # tiles of a task
    panel: int  # output channels of a task
    tasks: int
    plane: int  # bytes from term to term of transformed patches
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


def tiles_of(work: Work, form: Form) -> int:
    """How many tiles cover the pixels."""
    return work.images * math.prod(-(-n // axis.outputs) for n, axis in zip(work.p.count, form.axes, strict=True))


def products_of(work: Work, form: Form) -> int:
    """How many products of channels there are."""
    return work.images * math.prod(products(axis, n) for n, axis in zip(work.p.count, form.axes, strict=True))


@lru_cache(maxsize=1024)
def cut(work: Work, form: Form, room: Room) -> Cut:
    """The tasks of `winograd`."""
    c, o, item = work.in_channels, work.out_channels, work.item
    split, tiles = channels(work.dtype, o), tiles_of(work, form)

    def plane(chunk: int) -> int:
        return chunk * c * item + PLANE_PAD

    def slot(rows: int) -> int:
        chunk = rows * split.rows
        tables = TABLE + 8 * (form.most + 1 + form.planes) * chunk + 64
        nbytes = tables + form.terms * plane(chunk) + form.planes * (chunk * split.block * item + PLANE_PAD)
        nbytes = max(nbytes, TABLE + form.taps * split.lanes * split.block * item)  # which `weigh` needs before
        return -(-nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT

    blocks = -(-o // split.block)
    most = min(_TILE_ROWS, max(-(-tiles * blocks // (_LEAST_TASKS * split.rows)), 2))
    rows, threads = room.fitted(most, room.threads_for(tiles * form.terms * c * o), slot)
    chunk = rows * split.rows
    chunks = -(-tiles // chunk)
    panel = panel_of(split, o, chunks)
    return Cut(form, split, chunk, panel, chunks * -(-o // panel), plane(chunk), slot(rows), threads)


def fetches(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the next tiles should be fetched while products are made of some."""
    return max(x.shape[-1], y.shape[-1]) <= _FEW and x.nbytes + y.nbytes > _NEAR


def transformed(work: Work, form: Form) -> int:
    """How many numbers transformed weights are."""
    return form.terms * (work.in_channels + 1) * work.out_channels


@lru_cache(maxsize=1024)
def _term_rows(terms: int, channels: int) -> np.ndarray:
    """Taps that say which row of the transformed weights each term starts at."""
    rows = np.zeros((terms, 4), dtype=np.int64)
    rows[:, 3] = np.arange(terms) * (channels + 1)
    rows.flags.writeable = False
    return rows


def winograd(
    x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish, cut: Cut
) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for what has a form."""
    c, o, dtype, form = weights.in_channels, weights.out_channels, dtype_name(x.dtype), cut.form
    sums = y if finish.sums is None else finish.sums
    late, rows = finish.late, _term_rows(form.terms, c)
    what = ("winograd", weights.layout, form.code, p.rows)
    u = kept(weights.source, what, lambda: weigh(weights, dtype, p, cut))
    with borrowed(cut.scratch) as scratch:
        run(
            address("winograd", "winograd", dtype, *cut.split[:4], form.code, late),
            cut.tasks,
            *walk(x, sums, size, p, c * x.itemsize),
            *Winograd(
                place(u),
                c,
                o,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                finish.in_tile,
                cut.chunk,
                cut.panel,
                scratch,
                cut.slot,
                place(y) - place(sums) if late else 0,
                cut.plane,
                place(rows),
                cut.threads * cut.chunk if fetches(x, y) else 0,
            ),
            threads=cut.threads,
        )


def weigh(weights: Weights, dtype: str, p: Pass, cut: Cut) -> np.ndarray:
    """U = G w: (taps, C, O) -> (blocks of O, terms, C and a row of padding, channels of the block)."""
    c, o, form, split = weights.in_channels, weights.out_channels, cut.form, cut.split
    u = empty((form.terms * (c + 1) * o,), dtype)
    threads = min(threads_for(u.size * 4), cut.threads)
    kernel, tasks = ("weigh_turned", c // split.lanes) if weights.cells else ("weigh", c)
    with borrowed(cut.slot * threads) as scratch:
        run(
            address("winograd", kernel, dtype, split.vectors, split.tail, split.lanes, form.code),
            tasks,
            *Weighing(
                weights.address, place(u), c, o, weights.row_bytes, place(p.taps), scratch, cut.slot, weights.cells
            ),
            threads=threads,
        )
    return u
