"""P × V vectors of sums in registers, as LLVM instructions: what all tiles begin and end with."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from xpconv.engines.numba.kernels.memory import fetched, past_caches
from xpconv.engines.numba.kernels.vectors import I64, lane_mask, masked, spread

NONE, RELU, RELU6 = 0, 1, 2  # what a tile can do to its sums before it stores them


class Registers:
    """P × V vectors in an LLVM function, and how they are loaded and stored."""

    def __init__(self, builder: Any, dtype: str, rows: int, vectors: int, lanes: int, partial: Any) -> None:
        self.b, self.rows, self.columns, self.lanes = builder, rows, vectors, lanes
        self.number = ir.DoubleType() if dtype == "float64" else ir.FloatType()
        self.size = 8 if dtype == "float64" else 4
        self.kind = ir.VectorType(self.number, lanes)
        self.partial = partial  # how many lanes of the last vector there are, or None: all
        self.mask = None if partial is None else lane_mask(builder, partial, lanes)
        self.sums = [[cgutils.alloca_once(builder, self.kind) for _ in range(vectors)] for _ in range(rows)]
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.kind, [self.kind] * 3), f"llvm.fmuladd.v{lanes}f{8 * self.size}"
        )

    def clear(self) -> None:
        for row in self.sums:
            for place in row:
                self.b.store(ir.Constant(self.kind, [0.0] * self.lanes), place)

    def load(self, address: Any, v: int) -> Any:
        """Vector v of a row of numbers at an address."""
        pointer = self.pointer(address, v)
        if self.mask is not None and v == self.columns - 1:
            function, _ = masked(self.b, self.kind, 8 * self.size)
            align = ir.Constant(ir.IntType(32), self.size)
            return self.b.call(function, [pointer, align, self.mask, ir.Constant(self.kind, [0.0] * self.lanes)])
        value = self.b.load(pointer)
        value.align = self.size
        return value

    def store(self, value: Any, address: Any, v: int) -> None:
        pointer = self.pointer(address, v)
        if self.mask is not None and v == self.columns - 1:
            _, function = masked(self.b, self.kind, 8 * self.size)
            self.b.call(function, [value, pointer, ir.Constant(ir.IntType(32), self.size), self.mask])
        else:
            self.b.store(value, pointer).align = self.size

    def broadcast(self, address: Any) -> Any:
        """The number at an address in all lanes."""
        value = self.b.load(self.b.inttoptr(address, self.number.as_pointer()))
        value.align = self.size
        return spread(self.b, value, self.lanes)

    def step(self, numbers: list[Any], row: Any) -> None:
        """Add the outer product of P numbers, each given by its address, and a row of V vectors."""
        vectors = [self.load(row, v) for v in range(self.columns)]
        for p, number in enumerate(numbers):
            left = self.broadcast(number)
            for v, right in enumerate(vectors):
                place = self.sums[p][v]
                self.b.store(self.b.call(self.fma, [left, right, self.b.load(place)]), place)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.kind, [value] * self.lanes)

    def pointer(self, address: Any, v: int) -> Any:
        offset = ir.Constant(I64, v * self.lanes * self.size)
        return self.b.inttoptr(self.b.add(address, offset), self.kind.as_pointer())


def word(builder: Any, address: Any, index: Any) -> Any:
    """The 64-bit integer at ``address[index]``."""
    place = builder.add(address, builder.shl(index, ir.Constant(I64, 3)))
    value = builder.load(builder.inttoptr(place, I64.as_pointer()))
    value.align = 8
    return value


def prefetch(builder: Any, address: Any, write: bool = False) -> None:
    """Have the cache line at an address brought near."""
    fetched(builder, builder.inttoptr(address, ir.IntType(8).as_pointer()), write, near=2)


def store_past_caches(r: Registers, value: Any, address: Any, v: int) -> None:
    """Store vector v of a row, a whole line of the cache that nobody will read soon, without reading it first."""
    past_caches(r.b, r.b.store(value, r.pointer(address, v)), r.lanes * r.size)


def _when(builder: Any, flag: Any) -> Any:
    return builder.if_then(builder.icmp_signed("!=", flag, ir.Constant(I64, 0)))


def finish(r: Registers, p: int, out: Any, more: Any, bias: Any, other: Any, residual: Any, act: Any, at: Any) -> None:
    """Add to the sums of a pixel what is due, and store them."""
    b = r.b
    for flag, address in ((more, out), (bias, b.add(bias, at)), (residual, other)):
        with _when(b, flag):
            for v in range(r.columns):
                b.store(b.fadd(b.load(r.sums[p][v]), r.load(address, v)), r.sums[p][v])
    with _when(b, act):
        for v in range(r.columns):
            z = b.load(r.sums[p][v])
            b.store(b.select(b.fcmp_ordered("<", z, r.constant(0.0)), r.constant(0.0), z), r.sums[p][v])
    with b.if_then(b.icmp_signed("==", act, ir.Constant(I64, RELU6))):
        for v in range(r.columns):
            z = b.load(r.sums[p][v])
            b.store(b.select(b.fcmp_ordered(">", z, r.constant(6.0)), r.constant(6.0), z), r.sums[p][v])
    for v in range(r.columns):
        r.store(b.load(r.sums[p][v]), out, v)
