"""Running `kernels.columns`: input gradients of convolutions with few input channels."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import empty, place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import walk
from xpconv.engines.numba.fields import Columns, Pack
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import ONE_TAP, Pass
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import Channels, Room, Work, channels
from xpconv.errors import dtype_name
from xpconv.window import Window

_MOST_CELLS = 64  # products are added one after another: many would drift
_BANDS = 16  # tasks in all, if there are fewer images


def suits(work: Work, window: Window) -> bool:
    """Whether kernel cells beside one another fill the lanes better than the input channels do."""
    few = 2 * work.in_channels <= machine().lanes(work.dtype)
    cells = math.prod(window.kernel)
    return few and work.groups == 1 and window.rank <= 2 and window.dilation[-1] == 1 and 1 < cells <= _MOST_CELLS


class Cut(NamedTuple):
    """An input gradient in tasks: a band of rows of an image."""

    split: Channels  # of kernel cells · channels
    band: int
    tasks: int
    slot: int  # bytes of scratch of a thread
    threads: int

    @property
    def scratch(self) -> int:
        return self.slot * self.threads


@lru_cache(maxsize=1024)
def cut(work: Work, window: Window, room: Room) -> Cut:
    """The tasks of `columns`; the pass of the work is that of the output."""
    width = math.prod(window.kernel) * work.in_channels
    split, pixels = channels(work.dtype, width), work.p.count[2]
    band = max(-(-window.size[0] * work.images // _BANDS), 4 * window.kernel[0]) if window.rank == 2 else 1
    bands = -(-window.size[0] // band) if window.rank == 2 else 1
    slot = 8 * 2 * (pixels + split.rows) + (pixels + split.rows) * width * work.item + 4096
    threads = room.seats(room.threads_for(work.multiply_adds), slot)
    return Cut(split, band, work.images * bands, slot, threads)


def columns(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, window: Window, p: Pass, cut: Cut) -> None:
    """dx = the transpose of the convolution in x, for what `suits`; dx in C order."""
    c, o = w.shape[-2:]
    across, width = window.kernel[-1], math.prod(window.kernel) * c
    turned = transposed(w.reshape(width, o))
    with borrowed(cut.scratch) as scratch:
        run(
            address("columns", "columns", dtype_name(dy.dtype), *cut.split),
            cut.tasks,
            *walk(dx, dy, window.size, p, c * dy.itemsize),
            *Columns(
                place(turned),
                width * dy.itemsize,
                o,
                len(p.taps) // across,
                across,
                c,
                cut.band,
                place(ONE_TAP),
                scratch,
                cut.slot,
            ),
            threads=cut.threads,
        )


def transposed(matrix: np.ndarray) -> np.ndarray:
    """(rows, columns) -> (columns, rows)."""
    rows, columns = matrix.shape
    turned = empty((columns, rows), matrix.dtype)
    strip = 64
    run(
        address("pack", "transpose", dtype_name(matrix.dtype), machine().lanes(dtype_name(matrix.dtype))),
        -(-columns // strip),
        *Pack(place(matrix), place(turned), 1, 1, rows, columns, strip),
        threads=threads_for(4 * matrix.size),
    )
    return turned
