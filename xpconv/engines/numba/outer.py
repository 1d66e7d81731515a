"""Running `kernels.outer`: the weight gradient of a convolution or a linear layer."""

from __future__ import annotations

import numpy as np

from xpconv.engines.numba.arrays import place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import scratch_bytes, walk
from xpconv.engines.numba.fields import Outer, Reduce
from xpconv.engines.numba.plan import Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import PIXEL_BLOCK, channels, panel_of, slabs_of, tap_channels, taps_of

_PIECE = 8192  # numbers of a task that adds slabs up


def outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass, groups: int) -> None:
    """dw = Σ over pixels of x under each tap · dy; dy and dw in C order."""
    c, o = dw.shape[-2], dw.shape[-1] // groups
    item, dtype = x.itemsize, x.dtype.name
    depthwise = groups > 1 and c == o == 1
    if depthwise:
        o, groups = groups, 1
    split = tap_channels(dtype, o, len(p.taps)) if depthwise else channels(dtype, o)
    pixels = x.shape[0] * p.pixels
    slabs = slabs_of(dw.nbytes, pixels)
    slab_pixels = -(-max(pixels, 1) // (slabs * PIXEL_BLOCK)) * PIXEL_BLOCK
    slabs = -(-max(pixels, 1) // slab_pixels)
    share = len(p.taps) if depthwise else taps_of(len(p.taps), slabs * groups)
    shares = -(-len(p.taps) // share)
    panel = panel_of(split, o, slabs * groups * shares)
    cell = x.shape[-1] * item
    slot = scratch_bytes(PIXEL_BLOCK, split.rows, p, cell) + PIXEL_BLOCK * split.block * item
    threads = threads_for(pixels * dw.size)
    tables = -(-slot * threads // ALIGNMENT) * ALIGNMENT
    with borrowed(tables + (dw.nbytes * slabs if slabs > 1 else 0)) as scratch:
        parts = scratch + tables if slabs > 1 else place(dw)
        run(
            address(*(("depthwise", "depthwise_outer") if depthwise else ("outer", "outer")), dtype, *split),
            slabs * shares * -(-o // panel) * groups,
            *walk(x, dy, size, p, cell),
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
        if slabs > 1:
            run(
                address("outer", "reduce", dtype, split.lanes),
                -(-dw.size // _PIECE),
                *Reduce(place(dw), parts, dw.nbytes, slabs, dw.size, _PIECE),
                threads=threads_for(dw.size * slabs),
            )
