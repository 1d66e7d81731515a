"""Depthwise convolution in three directions, by kernels of its own: each channel has its own kernels of one channel."""

from __future__ import annotations

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.activation import NUMBERS
from xpconv.engines.cupy.arrays import computed_in
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.finish import Output
from xpconv.engines.cupy.sums import Slabs
from xpconv.engines.cupy.windows import outs, struct, taps


def fprop(x: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """y[..., c · multiplier + m] = Σ over the cells of x[..., c] · w[cell, 0, c · multiplier + m]."""
    epilogue, multiplier = output.epilogue, sizes.outputs // sizes.channels
    width = width_of(sizes.outputs, output.y, w, *([x] if multiplier == 1 else []))
    numbers = np.int32(multiplier), np.int32(NUMBERS[epilogue.activation])
    args = (x, w, *epilogue.vectors, epilogue.residual, output.sums, output.y, *numbers)
    items, largest = output.y.size // width, max(x.size, output.y.size)
    window = struct(sizes.window, x.shape[0], sizes.channels)
    launch("depthwise", "outputs", x, items, *args, window, largest=largest, width=width)


def dgrad(dy: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """dx[..., c] = Σ over windows and multiples of dy · w, plus a bias and a residual."""
    dx, (bias, residual, *_) = output.y, output.epilogue
    width = width_of(sizes.channels, dy, dx)
    args = (dy, w, bias, residual, dx, np.int32(sizes.outputs // sizes.channels))
    window, largest = struct(sizes.window, dy.shape[0], sizes.channels), max(dx.size, dy.size)
    launch("depthwise", "inputs", dy, dx.size // width, *args, window, largest=largest, width=width)


def wgrad(x: Array, dy: Array, sizes: Sizes) -> Array:
    """dw[cell, c · multiplier + m] = Σ over windows of x · dy, in slabs of windows: (cells, O)."""
    count = taps(sizes.window)
    dw = cupy.empty((count, sizes.outputs), dtype=x.dtype)
    if not x.size or not dy.size:
        dw.fill(0)
        return dw
    slabs = Slabs.of(x.shape[0] * outs(sizes.window), sizes.outputs)
    parts = cupy.empty((slabs.slabs, *dw.shape), dtype=computed_in(x.dtype))
    window = struct(sizes.window, x.shape[0], sizes.channels)
    args = (x, dy, parts, np.int32(sizes.outputs // sizes.channels), *integers(slabs.size), window)
    slabs.launch("depthwise", "weight_slabs", x, *args, last=count)
    slabs._replace(columns=dw.size).settle(x, parts, dw)
    return dw
