"""Running `kernels.winograd_outer`: weight gradients by Winograd's forms."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import walk
from xpconv.engines.numba.fields import PLANE_PAD, TABLE, Reduce, Weighing, WinogradOuter
from xpconv.engines.numba.forms import Form
from xpconv.engines.numba.outer import PIECE
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import Channels, Room, Slabs, Work, channels, cut_slabs, filled, least_slabs, panel_of
from xpconv.engines.numba.winograd import fetches, tiles_of
from xpconv.errors import dtype_name

_TILES, _FEW_TILES = 128, 64  # taken at a time, of many channels and of few


class Cut(NamedTuple):
    """A weight gradient in tasks: a slab of tiles by some output channels."""

    form: Form
    split: Channels
    chunk: int  # tiles taken at a time
    panel: int
    tasks: int
    slabs: Slabs

    @property
    def scratch(self) -> int:
        return self.slabs.slots + self.slabs.number * self.slabs.sum_bytes


@lru_cache(maxsize=1024)
def cut(work: Work, form: Form, room: Room) -> Cut:
    """The tasks of `winograd_outer`."""
    c, o, item, tiles = work.in_channels, work.out_channels, work.item, tiles_of(work, form)
    split, chunk = channels(work.dtype, o), _FEW_TILES if c < 128 else _TILES
    split = filled(split, c)
    sum_bytes = form.terms * c * o * item
    most = 16 if sum_bytes <= 2**19 else 4 if sum_bytes <= 2**21 else 1

    def slot(panel: int) -> int:
        patches = form.terms * (chunk * c * item + PLANE_PAD) + form.planes * (chunk * panel * item + PLANE_PAD)
        return -(-(TABLE + chunk * 8 + 64 + patches) // ALIGNMENT) * ALIGNMENT + ALIGNMENT

    threads = room.threads_for(tiles * form.terms * c * o)
    wanted = max(min(most, tiles // (2 * chunk)), least_slabs(tiles))
    parts = cut_slabs(tiles, wanted, least_slabs(tiles), chunk, slot(o), sum_bytes, threads, room)
    panel = panel_of(split, o, parts.number)
    seats = room.without(parts.number * sum_bytes).seats(threads, slot(panel))
    parts = parts._replace(slot=slot(panel), threads=seats)
    return Cut(form, split, chunk, panel, parts.number * -(-o // panel), parts)


def winograd_outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, cut: Cut) -> None:
    """dw = Gᵀ [Σ over tiles of (Bᵀ x) ⊗ (A dy)], as `outer.outer`, for what has a form."""
    c, o, dtype, slabs, form = dw.shape[-2], dw.shape[-1], dtype_name(x.dtype), cut.slabs, cut.form
    numbers = form.terms * c * o
    with borrowed(cut.scratch) as scratch:
        sums = scratch + slabs.slots
        run(
            address("winograd_outer", "outer", dtype, *cut.split[:4], form.code),
            cut.tasks,
            *walk(x, dy, size, p, max(c, o) * x.itemsize),
            *WinogradOuter(
                sums, c, o, slabs.number, slabs.size, cut.chunk, cut.panel, scratch, slabs.slot, fetches(x, dy)
            ),
            threads=slabs.threads,
        )
        if slabs.number > 1:
            run(
                address("outer", "reduce", dtype, cut.split.lanes),
                -(-numbers // PIECE),
                *Reduce(sums, sums, slabs.sum_bytes, slabs.number, numbers, PIECE),
                threads=threads_for(numbers * slabs.number),
            )
        run(
            address("winograd_outer", "unweigh", dtype, cut.split.lanes, form.code),
            c,
            *Weighing(sums, place(dw), c, o, o * x.itemsize, place(p.taps), scratch, TABLE),
            threads=min(threads_for(numbers), slabs.slots // TABLE),
        )
