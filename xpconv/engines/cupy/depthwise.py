"""Depthwise convolution in three directions, by kernels of its own: each channel has its own kernels of one channel."""

from __future__ import annotations

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.activation import NUMBERS
from xpconv.engines.cupy.arrays import computed_in
from xpconv.engines.cupy.columns import Sizes
from xpconv.engines.cupy.compiled import VECTOR, integers, launch, width_of
from xpconv.engines.cupy.finish import Output
from xpconv.engines.cupy.sums import Slabs, settle
from xpconv.engines.cupy.windows import struct, taps
from xpconv.window import Window

_RUN = 4  # as in the kernels' source: neighbours along the last axis that a thread takes
_SPAN = 3  # likewise: neighbours in a row of the kernel
_TERMS = 128  # that may be added up one by one


def fprop(x: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """y[..., c · multiplier + m] = Σ over the cells of x[..., c] · w[cell, 0, c · multiplier + m]."""
    _outputs(x, w, sizes, output, sizes.window, turned=False)


def dgrad(dy: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """dx[..., c] = Σ over windows and multiples of dy · w, plus a bias and a residual."""
    if _multiplier(sizes) == 1 and set(sizes.window.stride) <= {1}:
        _outputs(dy, w, sizes, output, _turned(sizes.window), turned=True)
        return
    dx, (bias, residual, *_) = output.y, output.epilogue
    width = _width(sizes, dx, dy, w, bias, residual)
    items, window = _runs(dx, width), struct(sizes.window, dy.shape[0], sizes.channels, sizes.channels // width, _RUN)
    args = (dy, w, bias, residual, dx, *integers(items), np.int32(_multiplier(sizes)), window)
    launch("depthwise", "inputs", dy, items, *args, largest=max(dx.size, dy.size, w.size), width=width)


def _outputs(x: Array, w: Array, sizes: Sizes, output: Output, window: Window, *, turned: bool) -> None:
    """Launch the kernel that goes through the cells of each window; ``turned``, with the last weight for the first."""
    y, epilogue = output.y, output.epilogue
    *scaling, bias = epilogue.vectors
    width = _width(sizes, y, x, w, bias, epilogue.residual)
    items, kernel_window = _runs(y, width), struct(window, x.shape[0], sizes.channels, sizes.outputs // width, _RUN)
    numbers = *integers(items), np.int32(_multiplier(sizes)), np.int32(NUMBERS[epilogue.activation]), turned
    args = (x, w, *scaling, bias, epilogue.residual, output.sums, y, *numbers, kernel_window)
    launch("depthwise", "outputs", x, items, *args, largest=max(x.size, y.size, w.size), width=width)


def _turned(window: Window) -> Window:
    """The window of stride 1 over dy in which a cell of x finds the windows that hold it, the last of them first."""
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    padding = tuple((r - before, r - after) for r, (before, after) in zip(reach, window.padding, strict=True))
    return Window(window.out, window.kernel, window.stride, window.dilation, padding, window.size)


def wgrad(x: Array, dy: Array, sizes: Sizes) -> Array:
    """dw[cell, c · multiplier + m] = Σ over windows of x · dy, in slabs of windows: (cells, O)."""
    window, kernel = sizes.window, sizes.window.kernel
    dw = cupy.empty((taps(window), sizes.outputs), dtype=x.dtype)
    if not x.size or not dy.size:
        dw.fill(0)
        return dw
    width = width_of(sizes.outputs, x, dy) if _multiplier(sizes) == 1 else 1
    spans = taps(window) // kernel[-1] * -(-kernel[-1] // _SPAN)
    slabs = Slabs.of(_runs(dy, dy.shape[-1]), sizes.outputs, width, terms=_RUN)
    parts = cupy.empty((slabs.slabs, *dw.shape), dtype=computed_in(x.dtype))
    numbers = np.int32(_multiplier(sizes)), np.int32(spans), *integers(slabs.rows, slabs.size)
    args = x, dy, parts, *numbers, struct(window, x.shape[0], sizes.channels, 1, _RUN)
    largest = max(x.size, dy.size, parts.size)
    slabs.launch("depthwise", "weight_slabs", x, *args, times=spans, largest=largest)
    settle(parts, dw)
    return dw


def _multiplier(sizes: Sizes) -> int:
    return sizes.outputs // sizes.channels


def _width(sizes: Sizes, made: Array, *arrays: Array | None) -> int:
    """Channels of a thread: one where each becomes several, and half a vector where sums are kept in blocks."""
    if _multiplier(sizes) != 1:
        return 1
    whole = VECTOR // made.dtype.itemsize
    return width_of(sizes.channels, made, *arrays, most=whole if taps(sizes.window) <= _TERMS else max(whole // 2, 1))


def _runs(made: Array, width: int) -> int:
    """Threads for what is written."""
    along = made.shape[-2]
    return made.size // max(along * width, 1) * -(-along // _RUN)
