"""Sums over all axes but the last, compiled; and how rows are shared out, which every sum of columns goes by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba.activation import gradient
from xpconv.engines.numba.arrays import dense, empty, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name
from xpconv.settings import current

PANEL = 64  # columns that one task settles


class Slabs(NamedTuple):
    """Rows shared out for sums of columns, by the shape alone, so that the number of threads changes no rounding."""

    rows: int
    columns: int
    size: int  # rows in a slab
    tasks: int  # one for each slab
    step: int  # numbers from the sums of one slab to the next
    nbytes: int  # of all sums

    @classmethod
    def of(cls, x: np.ndarray, kept: int) -> Slabs:
        """Of the rows of an array, with ``kept`` rows of sums for each slab."""
        n = x.shape[-1]
        return cls.sized(x.size // n if n else 0, n, kept * n, x.itemsize)

    @classmethod
    def sized(cls, rows: int, columns: int, kept: int, itemsize: int) -> Slabs:
        """Of some 64 slabs, of 8 if that makes them short, of fewer if the workspace limit asks for it.

        ``kept`` numbers for each.
        """
        size = min(2048, max(-(-rows // 64), min(128, -(-rows // 8)), 32) + 31 & -32)
        return cls.cut(rows, columns, kept, size, itemsize)

    @classmethod
    def cut(cls, rows: int, columns: int, kept: int, size: int, itemsize: int) -> Slabs:
        """Of so many rows, or of more if the workspace limit asks for it; ``kept`` numbers for each."""
        step = kept + 16  # the sums of a column lie in one set of a cache if this is a power of two
        most = max(current().workspace_limit // (step * itemsize), 1)
        size = max(size, -(-rows // most))
        tasks = -(-rows // size)
        return cls(rows, columns, size, tasks, step, tasks * step * itemsize)


class Vector(NamedTuple):
    """The constants that kernels of rows are made for."""

    dtype: str
    lanes: int
    ragged: bool  # whether a row ends within a vector


def vector(x: np.ndarray) -> Vector:
    """How rows of an array are read."""
    name = dtype_name(x.dtype)
    lanes = machine().lanes(name)
    return Vector(name, lanes, x.shape[-1] % lanes != 0)


def settled(module: str, factory: str, x: np.ndarray, slabs: Slabs, parts: int, *args: int) -> None:
    """Run a kernel that settles the sums of all slabs."""
    kernel = address(module, factory, dtype_name(x.dtype), machine().lanes("float64"), PANEL)
    threads = threads_for(16 * slabs.tasks * slabs.columns)
    run(kernel, -(-slabs.columns // PANEL), parts, slabs.tasks, slabs.step, *args, threads=threads)


def bias_grad(dy: np.ndarray) -> np.ndarray:
    """db = dy summed over all but the channels: (..., O) -> (O,)."""
    dy = dense(dy)
    sums, slabs = np.empty(dy.shape[-1], dtype=dy.dtype), Slabs.of(dy, 2)
    with borrowed(slabs.nbytes) as parts:
        kernel = address("sums", "columns", *vector(dy))
        sizes = slabs.rows, slabs.columns, slabs.size
        run(kernel, slabs.tasks, place(dy), *sizes, parts, slabs.step, threads=threads_for(dy.size))
        settled("sums", "settle", dy, slabs, parts, slabs.columns, place(sums))
    return sums


def epilogue_grad(
    kept: np.ndarray, dy: np.ndarray, *, activation: str, sum_it: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """dz, the gradient of what an activation was applied to, and its sum over all but the channels, in one pass."""
    if not sum_it:
        return gradient(activation, kept, dy), None
    kept, dy = dense(kept), dense(dy)
    dz, sums, slabs = empty(dy.shape, dy.dtype), np.empty(dy.shape[-1], dtype=dy.dtype), Slabs.of(dy, 2)
    with borrowed(slabs.nbytes) as parts:
        kernel = address("sums", "gradient_columns", activation, *vector(dy))
        sizes = slabs.rows, slabs.columns, slabs.size
        places = place(kept), place(dy), place(dz)
        run(kernel, slabs.tasks, *places, *sizes, parts, slabs.step, threads=threads_for(4 * dy.size))
        settled("sums", "settle", dy, slabs, parts, slabs.columns, place(sums))
    return dz, sums


def _declines(kept: np.ndarray, dy: np.ndarray, **_: Any) -> str | None:
    return unsupported(kept, dy)


PRIMITIVES = {
    "epilogue_grad": Primitive(epilogue_grad, declines=_declines),
    "bias_grad": Primitive(bias_grad, declines=unsupported),
}
