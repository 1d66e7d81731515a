"""Convolution in three directions, as sums over kernel cells of matrix products on boxes of windows.

Each direction walks over boxes of windows small enough for the cache. `fprop` gathers the input under a few
kernel cells at a time ("columns", at most 128 terms of the sum) and multiplies; `dgrad` is its transpose, step by
step: multiply, then add each cell's share where it came from; `wgrad` multiplies the columns with dy. Sums are
kept in blocks. Depthwise kernels, whose products would be 1 wide, are sums of elementwise products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from xpconv.backend import Array, conjugate, namespace
from xpconv.dispatch import Primitive
from xpconv.engines.portable.activation import activate, derivative
from xpconv.engines.portable.memory import Box, budget
from xpconv.engines.portable.pieces import covered, extent, landing, taps, under, window_boxes
from xpconv.engines.portable.scatter import Scatter
from xpconv.engines.portable.sums import BLOCK, RUN, RunningSum, block_product, block_sum, blocks, plus, row_product
from xpconv.window import Window

Tap = tuple[int, ...]


class _Kernel(NamedTuple):
    """Weights ``(*kernel, C / groups, O)`` as the loops read them."""

    taps: list[Tap]
    matrices: Array  # (taps, C / groups, O)
    groups: int

    @classmethod
    def of(cls, w: Array, window: Window, groups: int) -> _Kernel:
        shape = (math.prod(w.shape[:-2]), w.shape[-2], w.shape[-1])
        return cls(taps(window), namespace(w).reshape(w, shape), groups)

    @property
    def depthwise(self) -> bool:
        return self.matrices.shape[1] == 1 and self.groups > 1

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Input and output channels of each group."""
        c, o = self.matrices.shape[1], self.matrices.shape[2] // self.groups
        for g in range(self.groups):
            yield slice(g * c, g * c + c), slice(g * o, g * o + o)

    def matrix(self, run: slice, outputs: slice) -> Array:
        """The weights of a run of kernel cells for some output channels: (cells * C / groups, outputs)."""
        part = self.matrices[run, :, outputs]
        return namespace(part).reshape(part, (part.shape[0] * part.shape[1], part.shape[2]))

    def cells(self, most: int = BLOCK) -> Iterator[slice]:
        """Runs of at most as many kernel cells, whose columns are one block of the sum."""
        return blocks(len(self.taps), max(1, min(most, BLOCK // max(self.matrices.shape[1], 1))))


def fprop(x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y = activation(conv(x, w) · scale + bias + residual), box by box: (N, *size, C) -> (N, *out, O)."""
    xp = namespace(x)
    kernel = _Kernel.of(w, window, groups)
    y = xp.empty((x.shape[0], *window.out, w.shape[-1]), dtype=x.dtype, device=x.device)
    sums = xp.empty_like(y) if epilogue.keep_sums else None
    one_box = _depthwise_fprop if kernel.depthwise else _fprop_box
    for box in _boxes(x, kernel, window, w.shape[-1]):
        z = one_box(covered(x, window, box), kernel, window, box)
        if epilogue.scale is not None:
            z *= epilogue.scale
        if epilogue.bias is not None:
            z += epilogue.bias  # after the sum, so that it is rounded once
        if epilogue.residual is not None:
            z += epilogue.residual[(*box, slice(None))]
        if sums is not None:
            sums[(*box, slice(None))] = z
        y[(*box, slice(None))] = z if epilogue.activation is None else activate(epilogue.activation, z)
    return y if sums is None else (y, sums)


def dgrad(dy: Array, w: Array, *, window: Window, groups: int, bias: Array | None, residual: Array | None) -> Array:
    """dx = the transpose of `fprop` in x, plus a bias and a residual: (N, *out, O) -> (N, *size, C)."""
    kernel = _Kernel.of(conjugate(w), window, groups)
    channels = kernel.matrices.shape[1] * groups
    dx = Scatter(dy, window, channels, list(_boxes(dy, kernel, window, dy.shape[-1])))
    one_box = _depthwise_dgrad if kernel.depthwise else _dgrad_box
    for box in dx.boxes():
        one_box(dy[(*box, slice(None))], kernel, window, box, dx)
    for extra in (bias, residual):
        if extra is not None:
            dx.total += extra
    return dx.total


def wgrad(x: Array, dy: Array, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> Array:
    """dw = the transpose of `fprop` in w: (N, *size, C), (N, *out, O) -> (*kernel, C / groups, O)."""
    xp = namespace(x)
    kernel = _Kernel.of(xp.zeros(w_shape, dtype=x.dtype, device=x.device), window, groups)
    places = list(_boxes(x, kernel, window, dy.shape[-1]))
    dw = RunningSum(x, tuple(kernel.matrices.shape), len(places))
    one_box = _depthwise_wgrad if kernel.depthwise else _wgrad_box
    for box in places:
        one_box(conjugate(covered(x, window, box)), dy[(*box, slice(None))], kernel, window, box, dw)
    return xp.reshape(dw.total, w_shape)


def bias_grad(dy: Array) -> Array:
    """db = dy summed over all but the channels: (N, *out, O) -> (O,)."""
    return block_sum(dy)


def epilogue_grad(kept: Array, dy: Array, *, activation: str, sum_it: bool) -> tuple[Array, Array | None]:
    """dz, the gradient of what an activation was applied to, and its sum over all but the channels where wanted."""
    dz = derivative(activation, kept, dy)
    return dz, block_sum(dz) if sum_it else None


def _boxes(x: Array, kernel: _Kernel, window: Window, out_channels: int) -> Iterator[Box]:
    """Boxes of windows whose padded input, columns, product and sum fit the budget."""
    c = kernel.matrices.shape[1]
    columns = c * min(len(kernel.taps), max(1, BLOCK // c))
    return window_boxes(x, window, in_channels=c * kernel.groups, scratch=columns + 2 * out_channels)


def _columns(part: Array, cells: list[Tap], window: Window, box: Box, channels: slice) -> Array:
    """The input under some kernel cells, one row per window: (n, *cells, C) -> (windows, cells * channels)."""
    xp = namespace(part)
    views = [part[under(tap, window, box, channels)] for tap in cells]
    columns = views[0] if len(views) == 1 else xp.concat(views, axis=-1)
    return xp.reshape(columns, (math.prod(extent(box)), columns.shape[-1]))


def _fprop_box(part: Array, kernel: _Kernel, window: Window, box: Box) -> Array:
    xp = namespace(part)
    outs = []
    for cs, os in kernel.parts():
        z: Array = None
        for run in kernel.cells():
            z = plus(z, row_product(_columns(part, kernel.taps[run], window, box, cs), kernel.matrix(run, os)))
        outs.append(z)
    z = outs[0] if len(outs) == 1 else xp.concat(outs, axis=-1)
    return xp.reshape(z, (*extent(box), z.shape[-1]))


def _dgrad_box(dy: Array, kernel: _Kernel, window: Window, box: Box, dx: Scatter) -> None:
    xp = namespace(dy)
    rows, c = xp.reshape(dy, (math.prod(extent(box)), dy.shape[-1])), kernel.matrices.shape[1]
    for run in kernel.cells(RUN):
        for cs, os in kernel.parts():
            shares = row_product(rows[:, os], kernel.matrix(run, os).T)
            for i, tap in enumerate(kernel.taps[run]):
                place = landing(tap, window, box)
                if place is not None:
                    share = xp.reshape(shares[:, i * c : i * c + c], (*extent(box), c))
                    dx.add((*place[0][:-1], cs), share[place[1]])
        dx.given(run.stop - run.start)


def _wgrad_box(part: Array, dy: Array, kernel: _Kernel, window: Window, box: Box, dw: RunningSum) -> None:
    rows = namespace(dy).reshape(dy, (math.prod(extent(box)), dy.shape[-1]))
    for cs, os in kernel.parts():
        c, o = cs.stop - cs.start, os.stop - os.start
        for run in kernel.cells():
            columns = _columns(part, kernel.taps[run], window, box, cs)
            product = block_product(columns, rows[:, os], budget(part))
            dw.add((run, slice(None), os), namespace(dy).reshape(product, (-1, c, o)))


def _depthwise_fprop(part: Array, kernel: _Kernel, window: Window, box: Box) -> Array:
    """Each channel with its own kernels: z[..., c * multiplier + m] = sum over cells of x[..., c] w[cell, c, m]."""
    xp = namespace(part)
    weights = _per_channel(kernel)
    z: Array = None
    for run in blocks(len(kernel.taps), RUN):
        block: Array = None
        for i in range(run.start, run.stop):
            block = plus(block, part[under(kernel.taps[i], window, box)][..., None] * weights[i, ...])
        z = plus(z, block)
    return xp.reshape(z, (*extent(box), weights.shape[1] * weights.shape[2]))


def _depthwise_dgrad(dy: Array, kernel: _Kernel, window: Window, box: Box, dx: Scatter) -> None:
    xp = namespace(dy)
    weights = _per_channel(kernel)
    dy = xp.reshape(dy, (*extent(box), weights.shape[1], weights.shape[2]))
    for i, tap in enumerate(kernel.taps):
        place = landing(tap, window, box)
        if place is not None:
            dx.add(place[0], xp.sum(dy[(*place[1], slice(None))] * weights[i, ...], axis=-1, dtype=dy.dtype))
        dx.given()


def _depthwise_wgrad(part: Array, dy: Array, kernel: _Kernel, window: Window, box: Box, dw: RunningSum) -> None:
    xp = namespace(dy)
    weights = _per_channel(kernel)
    dy = xp.reshape(dy, (*extent(box), weights.shape[1], weights.shape[2]))
    for i, tap in enumerate(kernel.taps):
        products = part[under(tap, window, box)][..., None] * dy
        rows = xp.reshape(products, (math.prod(extent(box)), weights.shape[1] * weights.shape[2]))
        dw.add((slice(i, i + 1), slice(None), slice(None)), block_sum(rows)[None, None, :])


def _per_channel(kernel: _Kernel) -> Array:
    """(cells, 1, C * multiplier) -> (cells, C, multiplier)."""
    cells, _, o = kernel.matrices.shape
    return namespace(kernel.matrices).reshape(kernel.matrices, (cells, kernel.groups, o // kernel.groups))


def _describe(x: Array, w: Array, *, window: Window, groups: int, **_: Any) -> str:
    kernel = _Kernel.of(w, window, groups)
    pieces = sum(1 for _ in _boxes(x, kernel, window, w.shape[-1]))
    how = "elementwise sums" if kernel.depthwise else "matrix products"
    return f"{how} over {len(kernel.taps)} kernel cells, {pieces} piece{'s' * (pieces != 1)}"


PRIMITIVES = {
    "conv_fprop": Primitive(fprop, describe=_describe),
    "conv_dgrad": Primitive(dgrad),
    "conv_wgrad": Primitive(wgrad),
    "bias_grad": Primitive(bias_grad),
    "epilogue_grad": Primitive(epilogue_grad),
}
