"""Sums of columns, from slabs of rows that the shape alone decides: the same to the bit on any number of threads.

A slab's sums are kept in blocks of at most `BLOCK` rows; the sums of all slabs are added up, in order and in double
precision, by a kernel that *settles* them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.mathematics import slope
from xpconv.engines.numba.kernels.memory import fetch, number_type, pointers
from xpconv.engines.numba.kernels.vectors import VectorType, store_past_caches, vectors

BLOCK = 128
CHUNK = 2**13  # bytes
NARROW = 32  # columns up to which rows are read several at a time


def ends(dtype: str, lanes: int, ragged: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``get(pointer, index, left)`` and ``put(pointer, index, vector, left)``: a row may end within its last vector."""
    v = vectors(dtype, lanes)
    load, store = v.load, v.store
    if ragged:
        return v.load_some, v.store_some

    @njit
    def get(pointer, index, left):
        return load(pointer, index)

    @njit
    def put(pointer, index, vector, left):
        store(pointer, index, vector)

    return get, put


def end_put(dtype: str, lanes: int, ragged: bool, stream: bool) -> Callable[..., Any]:
    """The ``put`` of `ends`, or one past the caches."""
    if not stream:
        return ends(dtype, lanes, ragged)[1]

    @njit
    def put(pointer, index, vector, left):
        store_past_caches(pointer, index, vector)

    return put


@njit
def together(first, stop, rows, n):
    """How far a loop over rows may take so many at a time: rows that are long are read one after the other.

    Reading long rows side by side, memory is 2 to 3 times as slow: its prefetcher follows lines that come in order.
    """
    return first + (stop - first) // rows * rows if n <= NARROW else first


@njit
def chunk_of(nbytes):
    """The rows of so many bytes that sums over rows are taken of before the next column's turn: four, eight, ...

    They fit the L1 cache, where `ahead_by` has brought them in the order of memory; of rows that are too long for that,
    one at a time.
    """
    return max(CHUNK // nbytes // 4 * 4, 4)


@njit
def in_panels(n, four, near):
    """Whether rows are taken four vectors at a time, whose sums stay in registers, panel by panel.

    Rows of so many numbers come in the order of memory then; longer ones do not, which takes them being in a cache.
    """
    return n == four or (near and n % four == 0)


def adding_four(dtype: str, lanes: int) -> Callable[..., Any]:
    """``add(p, i, a, b, c, d)``: add four vectors to numbers from p[i] on."""
    load, store, _, _, _ = vectors(dtype, lanes)

    @njit
    def add(p, i, a, b, c, d):
        store(p, i, load(p, i) + a)
        store(p, i + lanes, load(p, i + lanes) + b)
        store(p, i + 2 * lanes, load(p, i + 2 * lanes) + c)
        store(p, i + 3 * lanes, load(p, i + 3 * lanes) + d)

    return add


def ahead_by(numbers: int, line: int) -> Callable[..., Any]:
    """``ahead(x, i)``: have so many numbers from i on brought near, and say where the next ones are."""

    @njit
    def ahead(x, i):
        for place in range(i, i + numbers, line):
            fetch(x, place)
        return i + numbers

    return ahead


def row_tools(dtype: str, lanes: int, ragged: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``clear(p, start, count)`` and ``gather(p, to, source, first, stop, count)``.

    The latter adds rows of ``source`` to numbers of ``p`` from ``to`` on, eight at a time.
    """
    get, put = ends(dtype, lanes, ragged)
    splat, number = vectors(dtype, lanes).splat, number_type(dtype)

    @njit
    def clear(p, start, count):
        for c in range(0, count, lanes):
            put(p, start + c, splat(number(0.0)), count - c)

    @njit
    def four(p, i, n, left):
        return (get(p, i, left) + get(p, i + n, left)) + (get(p, i + 2 * n, left) + get(p, i + 3 * n, left))

    @njit
    def gather(p, to, source, first, stop, n):
        eights = together(first, stop, 8, n)
        for r in range(first, eights, 8):
            for c in range(0, n, lanes):
                i, left = r * n + c, n - c
                put(
                    p,
                    to + c,
                    get(p, to + c, left) + (four(source, i, n, left) + four(source, i + 4 * n, n, left)),
                    left,
                )
        for r in range(eights, stop):
            for c in range(0, n, lanes):
                put(p, to + c, get(p, to + c, n - c) + get(source, r * n + c, n - c), n - c)

    return clear, gather


def columns(dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """A slab's sums. Arguments: x, rows, columns, rows in a slab, parts, numbers from slab to slab.

    Parts of a slab: (2, columns), its sums and those of a block.
    """
    at = pointers(number_type(dtype))
    clear, gather = row_tools(dtype, lanes, ragged)

    def kernel(args, task, slot):
        x, rows, n, slab = at(args[0]), args[1], args[2], args[3]
        parts = at(args[4] + task * args[5] * size)
        clear(parts, 0, n)
        last = min(slab * (task + 1), rows)
        for first in range(slab * task, last, BLOCK):
            clear(parts, n, n)
            gather(parts, n, x, first, min(first + BLOCK, last), n)
            gather(parts, 0, parts, 1, 2, n)

    size = number_type(dtype).bitwidth // 8
    return kernel


def gradient_columns(name: str, dtype: str, lanes: int, ragged: bool) -> Callable[..., Any]:
    """dz = the gradient before an activation, and a slab's sums of it. Arguments: kept, dy, dz, and those of `columns`
    after x."""
    at = pointers(number_type(dtype))
    clear, gather = row_tools(dtype, lanes, ragged)
    get, put = ends(dtype, lanes, ragged)
    before = slope(name, dtype, lanes)
    size = number_type(dtype).bitwidth // 8

    def kernel(args, task, slot):
        kept, dy, dz, rows, n, slab = at(args[0]), at(args[1]), at(args[2]), args[3], args[4], args[5]
        parts = at(args[6] + task * args[7] * size)
        clear(parts, 0, n)
        last = min(slab * (task + 1), rows)
        for first in range(slab * task, last, BLOCK):
            clear(parts, n, n)
            for r in range(first, min(first + BLOCK, last)):
                for c in range(0, n, lanes):
                    i, left = r * n + c, n - c
                    value = before(get(kept, i, left), get(dy, i, left))
                    put(dz, i, value, left)
                    put(parts, n + c, get(parts, n + c, left) + value, left)
            gather(parts, 0, parts, 1, 2, n)

    return kernel


def doubles(dtype: str, lanes: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``get(pointer, index, left)`` and ``put(pointer, index, vector, left)`` of doubles that are kept in a dtype."""
    kind, wide = VectorType(number_type(dtype), lanes), VectorType(types.float64, lanes)
    v = vectors(dtype, lanes)
    load, store = v.load_some, v.store_some
    if dtype == "float64":
        return load, store

    @intrinsic
    def widen(typing_context, vector):
        def codegen(context, builder, signature, args):
            return builder.fpext(args[0], ir.VectorType(ir.DoubleType(), lanes))

        return wide(kind), codegen

    @intrinsic
    def narrow(typing_context, vector):
        def codegen(context, builder, signature, args):
            return builder.fptrunc(args[0], ir.VectorType(ir.FloatType(), lanes))

        return kind(wide), codegen

    @njit
    def get(pointer, index, left):
        return widen(load(pointer, index, left))

    @njit
    def put(pointer, index, vector, left):
        store(pointer, index, narrow(vector), left)

    return get, put


def adder(dtype: str, lanes: int) -> Callable[..., Any]:
    """``add_up(p, start, step, count, left)``: sums of rows, so many numbers apart, in blocks and as doubles."""
    splat, (get, _) = vectors("float64", lanes).splat, doubles(dtype, lanes)

    @njit
    def add_up(p, start, step, count, left):
        total = splat(0.0)
        for first in range(0, count, BLOCK):
            block = splat(0.0)
            for i in range(first, min(first + BLOCK, count)):
                block = block + get(p, start + i * step, left)
            total = total + block
        return total

    return add_up


def settle(dtype: str, lanes: int, panel: int) -> Callable[..., Any]:
    """The sums of a panel of columns. Arguments: parts of `columns`, slabs, their step, columns, sums."""
    at, add_up, (_, put) = pointers(number_type(dtype)), adder(dtype, lanes), doubles(dtype, lanes)

    def kernel(args, task, slot):
        parts, slabs, step, n, sums = at(args[0]), args[1], args[2], args[3], at(args[4])
        for c in range(task * panel, min((task + 1) * panel, n), lanes):
            put(sums, c, add_up(parts, c, step, slabs, n - c), n - c)

    return kernel
