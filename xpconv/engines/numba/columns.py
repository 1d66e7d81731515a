"""Running `kernels.columns`: input gradients of convolutions with few input channels."""

from __future__ import annotations

import math

import numpy as np

from xpconv.engines.numba.arrays import dense, empty, place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import walk
from xpconv.engines.numba.fields import Columns, Pack
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import ONE_TAP, output_pass
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import channels
from xpconv.window import Window

_MOST_CELLS = 64  # products are added one after another: many would drift
_BANDS = 16  # tasks in all, if there are fewer images


def suits(w: np.ndarray, window: Window, groups: int) -> bool:
    """Whether kernel cells beside one another fill the lanes better than the input channels do."""
    few = 2 * w.shape[-2] <= machine().lanes(w.dtype.name)
    cells = math.prod(window.kernel)
    return few and groups == 1 and window.rank <= 2 and window.dilation[-1] == 1 and 1 < cells <= _MOST_CELLS


def columns(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, window: Window) -> None:
    """dx = the transpose of the convolution in x, for what `suits`; dx in C order."""
    c, o = w.shape[-2:]
    item, dtype = dy.itemsize, dy.dtype.name
    width = math.prod(window.kernel) * c
    p = output_pass(window, c, False)
    split = channels(dtype, width)
    turned = transposed(w.reshape(width, o))
    rows, across = p.count[2], window.kernel[-1]
    band = max(-(-window.size[0] * dy.shape[0] // _BANDS), 4 * window.kernel[0]) if window.rank == 2 else 1
    bands = -(-window.size[0] // band) if window.rank == 2 else 1
    slot = 8 * 2 * (rows + split.rows) + (rows + split.rows) * width * item + 4096
    threads = threads_for(dy.shape[0] * p.pixels * width * o)
    with borrowed(slot * threads) as scratch:
        run(
            address("columns", "columns", dtype, *split),
            dy.shape[0] * bands,
            *walk(dx, dense(dy), window.size, p, c * item),
            *Columns(
                place(turned), width * item, o, len(p.taps) // across, across, c, band, place(ONE_TAP), scratch, slot
            ),
            threads=threads,
        )


def transposed(matrix: np.ndarray) -> np.ndarray:
    """(rows, columns) -> (columns, rows)."""
    rows, columns = matrix.shape
    turned = empty((columns, rows), matrix.dtype)
    strip = 64
    run(
        address("pack", "transpose", matrix.dtype.name, machine().lanes(matrix.dtype.name)),
        -(-columns // strip),
        *Pack(place(matrix), place(turned), 1, 1, rows, columns, strip),
        threads=threads_for(4 * matrix.size),
    )
    return turned
