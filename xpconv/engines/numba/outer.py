"""Running `kernels.outer`: the weight gradient of a convolution or a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from xpconv.engines.numba.arrays import place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import scratch_bytes, walk
from xpconv.engines.numba.fields import Outer, Reduce
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import PIXEL_BLOCK, channels, panel_of, slabs_of, taps_of

_PIECE = 8192  # numbers of a task that adds slabs up


def outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, groups: int) -> None:
    """dw = Σ over pixels of x under each tap · dy; dy and dw in C order."""
    c, o = dw.shape[-2], dw.shape[-1] // groups
    item, dtype = x.itemsize, x.dtype.name
    split = channels(dtype, o)
    pixels = x.shape[0] * p.pixels
    slabs = slabs_of(dw.nbytes, pixels)
    slab_pixels = -(-max(pixels, 1) // (slabs * PIXEL_BLOCK)) * PIXEL_BLOCK
    slabs = -(-max(pixels, 1) // slab_pixels)
    share = taps_of(len(p.taps), slabs * groups)
    shares = -(-len(p.taps) // share)
    panel = panel_of(split, o, slabs * groups * shares)
    slot = scratch_bytes(PIXEL_BLOCK, split.rows, p, x.shape[-1] * item)
    threads = threads_for(pixels * dw.size)
    with add_up(dw, slabs, slot * threads) as (parts, scratch):
        run(
            address("outer", "outer", dtype, *split),
            slabs * shares * -(-o // panel) * groups,
            *walk(x, dy, size, p, x.shape[-1] * item),
            *Outer(
                parts,
                o * groups * item,
                p.run * c,
                o,
                groups,
                c * item,
                slabs,
                slab_pixels,
                dw.nbytes,
                share,
                panel,
                scratch,
                slot,
            ),
            threads=threads,
        )


@contextmanager
def add_up(total: np.ndarray, slabs: int, scratch_bytes: int) -> Iterator[tuple[int, int]]:
    """Addresses for a sum of each slab, one after another, and of scratch; at the end the sums are added to make the total."""
    tables = -(-scratch_bytes // ALIGNMENT) * ALIGNMENT
    with borrowed(tables + (total.nbytes * slabs if slabs > 1 else 0)) as scratch:
        parts = scratch + tables if slabs > 1 else place(total)
        yield parts, scratch
        if slabs > 1:
            run(
                address("outer", "reduce", total.dtype.name, machine().lanes(total.dtype.name)),
                -(-total.size // _PIECE),
                *Reduce(place(total), parts, total.nbytes, slabs, total.size, _PIECE),
                threads=threads_for(total.size * slabs),
            )
