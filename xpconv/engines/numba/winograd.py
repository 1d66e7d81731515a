"""Running `kernels.winograd`: 3 × 3 convolutions of stride 1, as outputs and as input gradients."""

from __future__ import annotations

import math

import numpy as np

from xpconv.engines.numba.arrays import empty, kept, place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import IN_TILE, Finish, Weights, walk
from xpconv.engines.numba.fields import Reduce, Weighing, Winograd, WinogradOuter
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import ONE_TAP, Pass
from xpconv.engines.numba.scratch import ALIGNMENT, borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import channels, panel_of
from xpconv.settings import current

_PIECE = 8192  # numbers of a task that adds slabs up
_TILE_ROWS = 8  # register tiles in a task
_PAD = 192  # bytes between planes, lest all of them start in the same set of the cache


def suits(x: np.ndarray, weights: Weights, p: Pass) -> bool:
    """Whether the pass is a 3 × 3 convolution of stride 1 on whole vectors of channels, of one group."""
    lanes = machine().lanes(x.dtype.name)
    whole = weights.in_channels % lanes == 0 and weights.out_channels % lanes == 0
    steps = np.diff(p.taps[:, :3], axis=0)
    neighbours = len(p.taps) == 9 and p.run == 1 and p.step == p.spacing == (1, 1, 1)
    return whole and neighbours and weights.groups == 1 and bool((steps == _STEPS).all())


_STEPS = np.array([(0, 0, 1), (0, 0, 1), (0, 1, -2)] * 3)[:8]


def outputs_of_tile() -> int:
    """m of F(m × m, 3 × 3): 2 is more exact than the direct sum, 4 is faster and ten times less exact."""
    return 4 if current().precision == "fast" else 2


def winograd(x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish) -> None:
    """y = finish(Σ x · w), as `direct.direct`, for what `suits`."""
    m = outputs_of_tile()
    c, o, item, dtype = weights.in_channels, weights.out_channels, x.itemsize, x.dtype.name
    split = channels(dtype, o)
    tiles = x.shape[0] * math.prod(-(-n // m) for n in p.count)
    chunk = split.rows * _TILE_ROWS
    planes = (m + 2) ** 2
    plane = chunk * c * item + _PAD
    slot = -(-(planes * (8 + plane + chunk * split.block * item + _PAD) + 16 * chunk) // 4096) * 4096 + 4096
    threads = threads_for(tiles * planes * c * o)
    sums = y if finish.sums is None else finish.sums
    late = None if finish.activation in IN_TILE else finish.activation
    u = kept(weights.source, ("winograd", weights.layout, m), lambda: weigh(weights, dtype, m))
    with borrowed(slot * threads) as scratch:
        run(
            address("winograd", "winograd", dtype, *split[:4], m, late),
            -(-tiles // chunk),
            *walk(x, sums, size, p, c * item),
            *Winograd(
                place(u),
                c,
                o,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                IN_TILE.get(finish.activation, 0),
                chunk,
                scratch,
                slot,
                place(y) - place(sums),
                plane,
                place(ONE_TAP),
            ),
            threads=threads,
        )


def weigh(weights: Weights, dtype: str, m: int) -> np.ndarray:
    """U = G w Gᵀ: (9, C, O) -> ((m + 2)², C, O)."""
    c, o = weights.in_channels, weights.out_channels
    u = empty(((m + 2) ** 2, c, o), dtype)
    threads = threads_for(u.size * 4)
    with borrowed(128 * threads) as scratch:
        run(
            address("winograd", "weigh", dtype, machine().lanes(dtype), m),
            c,
            *Weighing(weights.address, place(u), c, o, weights.row_bytes, scratch),
            threads=threads,
        )
    return u


def winograd_outer(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, size: tuple[int, ...], p: Pass) -> None:
    """dw = Gᵀ [Σ over tiles of (Bᵀ x B) ⊗ (A dy Aᵀ)] G, as `outer.outer`, for what `suits`."""
    m = 2
    c, o, item, dtype = dw.shape[-2], dw.shape[-1], x.itemsize, x.dtype.name
    split = channels(dtype, o)
    planes = (m + 2) ** 2
    tiles = x.shape[0] * math.prod(-(-n // m) for n in p.count)
    chunk = 64 if c < 128 else 128
    sum_bytes = planes * c * o * item
    most = 16 if sum_bytes <= 2**19 else 4 if sum_bytes <= 2**21 else 1
    slabs = max(min(most, tiles // (2 * chunk)), -(-tiles // 2**19), 1)
    slab_tiles = -(-max(tiles, 1) // (slabs * chunk)) * chunk
    slabs = -(-max(tiles, 1) // slab_tiles)
    panel = panel_of(split, o, slabs)
    slot = planes * (8 + chunk * (c + panel) * item + 2 * _PAD) + (split.rows + chunk) * 8
    slot = -(-slot // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    threads = threads_for(tiles * planes * c * o)
    with borrowed(slot * threads + slabs * sum_bytes) as scratch:
        sums = scratch + slot * threads
        run(
            address("winograd", "outer", dtype, *split[:4], m),
            slabs * -(-o // panel),
            *walk(x, dy, size, p, max(c, o) * item),
            *WinogradOuter(sums, c, o, slabs, slab_tiles, chunk, panel, scratch, slot),
            threads=threads,
        )
        if slabs > 1:
            run(
                address("outer", "reduce", dtype, split.lanes),
                -(-planes * c * o // _PIECE),
                *Reduce(sums, sums, sum_bytes, slabs, planes * c * o, _PIECE),
                threads=threads_for(planes * c * o * slabs),
            )
        run(
            address("winograd", "unweigh", dtype, split.lanes, m),
            c,
            *Weighing(sums, place(dw), c, o, o * item, scratch),
            threads=threads_for(planes * c * o),
        )
