"""What follows the products of a convolution or a linear layer: bias, residual, activation, rounding, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.activation import NUMBERS
from xpconv.engines.cupy.arrays import computed_in, dense_or_none, is_half
from xpconv.engines.cupy.compiled import integers, launch, width_of
from xpconv.engines.cupy.divider import DIVIDER, divider, dividers

Sizes = tuple[int, ...]


class Epilogue(NamedTuple):
    """As `conv_fprop` is given it; an engine sees its own kind of it."""

    bias: Array | None = None
    residual: Array | None = None
    activation: str | None = None
    keep_sums: bool = False

    @classmethod
    def of(cls, given: Any) -> Epilogue:
        bias, residual = dense_or_none(given.bias), dense_or_none(given.residual)
        return cls(bias, residual, given.activation, given.keep_sums)

    @property
    def is_nothing(self) -> bool:
        return self.bias is None and self.residual is None and self.activation is None and not self.keep_sums


class Output(NamedTuple):
    """What is being made: y, and the sums before the activation where they are kept; rows are all axes but the last."""

    y: Array
    sums: Array | None
    epilogue: Epilogue

    @classmethod
    def like(cls, x: Array, shape: Sizes, epilogue: Epilogue) -> Output:
        y = cupy.empty(shape, dtype=x.dtype)
        return cls(y, cupy.empty(shape, dtype=x.dtype) if epilogue.keep_sums else None, epilogue)

    @property
    def result(self) -> Any:
        return self.y if self.sums is None else (self.y, self.sums)

    def takes_products(self, one_block: bool) -> bool:
        """Whether products may be written to y itself: sums of half precision are rounded once, at the end."""
        return not is_half(self.y) or (one_block and self.epilogue.is_nothing)

    def room(self, rows: int) -> Array:
        """Scratch for the sums of some rows."""
        return cupy.empty((rows, self.y.shape[-1]), dtype=computed_in(self.y.dtype))

    def pieces(self, size: int) -> Iterator[tuple[int, int]]:
        """Runs of rows: first and past the last."""
        rows = self.y.size // max(self.y.shape[-1], 1)
        for first in range(0, rows, size):
            yield first, min(first + size, rows)

    def finish(self, z: Array, first: int, last: int, held: tuple[Sizes, Sizes] | None = None) -> None:
        """Rows first..last-1 of y from their sums z; ``held``: the windows of an image, and the larger grid z has."""
        channels, rows = self.y.shape[-1], last - first
        if held is None and self.epilogue.is_nothing and z.dtype == self.y.dtype and z.data.ptr == self._at(first):
            return
        bias, residual, activation, _ = self.epilogue
        parts = [None if a is None else a.reshape(-1, channels)[first:last] for a in (residual, self.sums, self.y)]
        width = width_of(channels, *parts[2:], z, *(a for a in (bias, *parts[:2]) if a is not None))
        items, grid = rows * (channels // width), _grid(held, channels // width)
        args = (z, bias, *parts, *integers(items), np.int32(NUMBERS[activation]), grid)
        launch("epilogue", "finish", self.y, items, *args, largest=max(z.size, rows * channels), width=width)

    def _at(self, row: int) -> int:
        return int(self.y.data.ptr) + row * self.y.shape[-1] * self.y.dtype.itemsize


_GRID = np.dtype([("held", "i4", 3), ("packs", DIVIDER), ("out", DIVIDER, 3)], align=True)


@functools.lru_cache(maxsize=1024)
def _grid(held: tuple[Sizes, Sizes] | None, packs: int) -> np.ndarray[Any, Any]:
    """Windows and the grid that holds them, of three axes; a grid of zeros where rows are simply rows."""
    grid = np.zeros(1, dtype=_GRID)
    grid["packs"] = divider(packs)
    if held is not None:
        out, sizes = held
        grid["out"], grid["held"] = dividers(out), 1
        grid["held"][0, 3 - len(sizes) :] = sizes
    return grid
