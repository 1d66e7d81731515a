"""Convolution as matrix products of what is under the windows, cut into pieces that fit the workspace limit.

A kernel of one cell at stride 1 has its columns already: they are the input.
"""

from __future__ import annotations

from typing import NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.arrays import computed_in
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.divider import divider
from xpconv.engines.cupy.finish import Output
from xpconv.engines.cupy.gemm import Matrix, gemm, product, terms_of_a_block
from xpconv.engines.cupy.windows import outs, struct, taps
from xpconv.settings import current
from xpconv.window import Window


class Sizes(NamedTuple):
    """The matrices of a convolution: weights of a group are (terms, outputs), its columns (rows, terms)."""

    window: Window
    groups: int
    channels: int  # of the input, all groups together
    outputs: int

    @property
    def terms(self) -> int:
        return taps(self.window) * self.channels // self.groups

    @property
    def step(self) -> int:
        """Elements of a row of columns, all groups together."""
        return taps(self.window) * self.channels

    @property
    def plain(self) -> bool:
        """Whether the input itself is the matrix of columns."""
        w = self.window
        return taps(w) == 1 and w.out == w.size and all(s == 1 for s in w.stride) and not any(map(any, w.padding))

    def weights(self, w: Array) -> Matrix:
        """(*kernel, C / groups, O), for each group (terms, O / groups)."""
        each = self.outputs // self.groups
        return Matrix(w, self.terms, each, self.outputs, apart=each)

    def rows(self, dy: Array, first: int, last: int) -> Matrix:
        """(N, *out, O), for each group (rows, O / groups)."""
        each = self.outputs // self.groups
        return Matrix(dy, last - first, each, self.outputs, start=first * self.outputs, apart=each)

    def columns(self, array: Array, count: int, first: int = 0) -> Matrix:
        """(rows, groups, cells, C / groups), for each group (rows, terms)."""
        return Matrix(array, count, self.terms, self.step, start=first * self.step, apart=self.terms)

    def gathered(self, x: Array, first: int, last: int) -> Matrix:
        """The columns of windows first..last-1."""
        if self.plain:
            return self.columns(x, last - first, first)
        columns = cupy.empty((last - first, self.step), dtype=x.dtype)
        width, each = width_of(self.channels // self.groups, x, columns), self.channels // self.groups
        w, items = struct(self.window, x.shape[0], self.channels, each // width), columns.size // width
        items //= self.window.kernel[-1]  # a thread has a row of kernel cells
        args = (x, columns, *integers(first, items), divider(self.groups), w)
        largest = max(x.size, columns.size, last)  # windows are counted through all images
        launch("columns", "to_columns", x, items, *args, largest=largest, width=width)
        return self.columns(columns, last - first)

    def rows_at_once(self, x: Array) -> int:
        """Windows whose columns and sums fit the workspace limit; at least one."""
        each = self.outputs * computed_in(x.dtype).itemsize + (0 if self.plain else self.step * x.dtype.itemsize)
        return max(current().workspace_limit // each, 1)

    def images_at_once(self, dy: Array) -> int:
        """Images whose columns, as sums, fit the workspace limit; at least one."""
        each = outs(self.window) * self.step * computed_in(dy.dtype).itemsize
        return max(current().workspace_limit // max(each, 1), 1)


def fprop(x: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """y from columns @ weights, group by group: (N, *size, C) -> (N, *out, O)."""
    one_block = sizes.terms <= terms_of_a_block(sizes.terms, x)
    into_y = output.takes_products(one_block)
    for first, last in output.pieces(sizes.rows_at_once(x)):
        z = output.y.reshape(-1, sizes.outputs)[first:last] if into_y else output.room(last - first)
        product(sizes.gathered(x, first, last), sizes.weights(w), sizes.rows(z, 0, last - first), batch=sizes.groups)
        if not (into_y and output.epilogue.is_nothing):
            output.finish(z, first, last)


def dgrad(dy: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """dx from dy @ weights.T, gathered where the windows overlap: (N, *out, O) -> (N, *size, C)."""
    if sizes.plain:
        _plain_dgrad(dy, w, sizes, output)
        return
    each, at_once = outs(sizes.window), sizes.images_at_once(dy)
    for image in range(0, dy.shape[0], at_once):
        images = min(at_once, dy.shape[0] - image)
        rows = images * each
        columns = cupy.empty((rows, sizes.step), dtype=computed_in(dy.dtype))
        shares = sizes.columns(columns, rows)
        product(sizes.rows(dy, image * each, image * each + rows), sizes.weights(w).T, shares, batch=sizes.groups)
        bias, residual, *_ = output.epilogue
        beside, into = None if residual is None else residual[image : image + images], output.y[image : image + images]
        width = width_of(sizes.channels // sizes.groups, into, columns, bias, beside)
        items, packs = into.size // width, sizes.channels // width
        numbers = *integers(items), np.int32(sizes.groups), np.int32(taps(sizes.window))
        window = struct(sizes.window, images, sizes.channels, packs)
        args = (columns, bias, beside, into, *numbers, divider(packs // sizes.groups), window)
        launch("columns", "from_columns", dy, items, *args, largest=max(columns.size, output.y.size), width=width)


def _plain_dgrad(dy: Array, w: Array, sizes: Sizes, output: Output) -> None:
    """Of a kernel of one cell: the same product as forward, with the weights turned."""
    terms = sizes.outputs // sizes.groups
    into_y = output.takes_products(terms <= terms_of_a_block(terms, dy))
    for first, last in output.pieces(sizes.rows_at_once(dy)):
        z = output.y.reshape(-1, sizes.channels)[first:last] if into_y else output.room(last - first)
        rows, into = sizes.rows(dy, first, last), sizes.columns(z, last - first)
        product(rows, sizes.weights(w).T, into, batch=sizes.groups)
        if not (into_y and output.epilogue.is_nothing):
            output.finish(z, first, last)


def wgrad(x: Array, dy: Array, sizes: Sizes) -> Array:
    """dw = columns.T @ dy, its long sum in blocks of rows: (N, *size, C), (N, *out, O) -> (terms, O), as summed."""
    rows = dy.size // max(sizes.outputs, 1)
    count = sizes.terms * sizes.outputs
    dtype = computed_in(x.dtype)
    total = cupy.empty((sizes.terms, sizes.outputs), dtype=dtype)
    if not rows:
        total.fill(0)
        return total
    block = min(terms_of_a_block(rows, x), rows)
    scratch = 0 if sizes.plain else block * sizes.step * x.dtype.itemsize
    blocks = max(current().workspace_limit // (scratch + count * dtype.itemsize), 1)
    for first in range(0, rows, blocks * block):
        last = min(first + blocks * block, rows)
        parts = cupy.empty((-(-(last - first) // block), count), dtype=dtype)
        _block_products(sizes.gathered(x, first, last), sizes.rows(dy, first, last), block, sizes, parts)
        args = (parts, total, *integers(parts.shape[0], count), first > 0)
        launch("columns", "add_parts", x, count, *args, largest=parts.size)
    return total


def _block_products(columns: Matrix, rows: Matrix, block: int, sizes: Sizes, parts: Array) -> None:
    """columns.T @ rows of each block of rows, into a part of its own: whole blocks at once, or groups at once."""
    each = sizes.outputs // sizes.groups
    whole, count = columns.rows // block, sizes.terms * sizes.outputs
    into = Matrix(parts, sizes.terms, each, sizes.outputs, apart=each)

    def at(b: int, terms: int) -> tuple[Matrix, Matrix, Matrix]:
        run = slice(b * block, b * block + terms)
        here = into._replace(start=b * count)
        return columns.part(run, slice(0, columns.columns)), rows.part(run, slice(0, rows.columns)), here

    if whole >= sizes.groups:
        a, b, c = at(0, block)
        for g in range(sizes.groups):
            left = a._replace(start=a.start + g * a.apart, apart=block * a.step)
            right = b._replace(start=b.start + g * b.apart, apart=block * b.step)
            gemm(left.T, right, c._replace(start=c.start + g * c.apart, apart=count), batch=whole)
    else:
        for i in range(whole):
            a, b, c = at(i, block)
            gemm(a.T, b, c, batch=sizes.groups)
    if columns.rows > whole * block:
        a, b, c = at(whole, columns.rows - whole * block)
        gemm(a.T, b, c, batch=sizes.groups)
