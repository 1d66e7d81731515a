"""Running `kernels.direct`: one pass of a convolution's output or input gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xpconv.engines.numba.arrays import place, place_of
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import Direct, Walk
from xpconv.engines.numba.plan import Pass, triple
from xpconv.engines.numba.scratch import borrowed, zeros_address
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import channels, panel_of

_TILES = 16  # of pixels in a task: enough for a panel of weights to pay for its way into the cache
IN_TILE = {None: 0, "relu": 1, "relu6": 2}  # kernels.tile


class Weights(NamedTuple):
    """Rows of output channels, one for each input channel of each kernel cell."""

    address: int
    row_bytes: int
    in_channels: int  # of a group
    out_channels: int  # of a group
    groups: int
    source: np.ndarray  # what they were made of, and how: the name that more can be kept under
    layout: str


class Finish(NamedTuple):
    """What is done to a sum before it is stored."""

    bias: np.ndarray | None = None
    residual: np.ndarray | None = None  # laid out as y
    activation: str | None = None
    sums: np.ndarray | None = None  # where to keep what the activation is applied to


def walk(x: np.ndarray, y: np.ndarray, size: tuple[int, ...], p: Pass, cell: int) -> Walk:
    """The walk of a pass over x (cells of so many bytes) and y, both with channels side by side."""
    ys = triple(y.strides[1:-1], 0)
    return Walk(
        place(x),
        place(y) + sum(stride * start for stride, start in zip(ys, p.start, strict=True)),
        x.shape[0],
        *p.count,
        *triple(size, 1),
        *p.step,
        x.strides[0],
        *triple(x.strides[1:-1], 0),
        y.strides[0],
        *(stride * spacing for stride, spacing in zip(ys, p.spacing, strict=True)),
        place(p.taps),
        len(p.taps),
        p.run,
        cell,
        zeros_address(p.run * cell),
    )


def scratch_bytes(pixels: int, rows: int, p: Pass, cell: int) -> int:
    """For the tables of so many pixels, and copies of the runs that hang over an edge."""
    tables = 8 * ((pixels + rows) * (1 + len(p.taps)) + len(p.taps) + rows)
    edges = pixels * len(p.taps) * p.run * cell if p.run > 1 else 0
    # Not a multiple of the page: threads' tables should not share the same few sets of the cache.
    return -(-(tables + edges) // 4096) * 4096 + 256


def multiply_adds(x: np.ndarray, weights: Weights, p: Pass) -> int:
    """The work of a pass."""
    cells = len(p.taps) * p.run
    return int(x.shape[0]) * p.pixels * cells * weights.in_channels * weights.out_channels * weights.groups


def direct(x: np.ndarray, weights: Weights, y: np.ndarray, size: tuple[int, ...], p: Pass, finish: Finish) -> None:
    """y = finish(Σ x · w), for the pixels of one pass."""
    _, row_bytes, c, o, groups, _, _ = weights
    item, dtype = x.itemsize, x.dtype.name
    split = channels(dtype, o)
    pixels = x.shape[0] * p.pixels
    chunk = split.rows * _TILES
    chunks = -(-pixels // chunk)
    panel = panel_of(split, o, chunks * groups)
    cell = x.shape[-1] * item
    slot = scratch_bytes(chunk, split.rows, p, cell)
    threads = threads_for(multiply_adds(x, weights, p))
    late = None if finish.activation in IN_TILE else finish.activation
    sums = y if finish.sums is None else finish.sums
    kernel = address("direct", "direct", dtype, *split, late)
    with borrowed(slot * threads) as scratch:
        run(
            kernel,
            chunks * -(-o // panel) * groups,
            *walk(x, sums, size, p, cell),
            *Direct(
                weights.address,
                row_bytes,
                p.run * c,
                o,
                groups,
                c * item,
                place_of(finish.bias),
                0 if finish.residual is None else place(finish.residual) - place(sums),
                IN_TILE.get(finish.activation, 0),
                chunk,
                panel,
                scratch,
                slot,
                place(y) - place(sums),
            ),
            threads=threads,
        )
