"""Vector registers as values: ``load``, ``store``, ``+ - * /`` and comparisons on `lanes` numbers at a time.

`vectors(dtype, lanes)` makes the functions that need to know the type; those below it learn it from their arguments.
Kernels spell vectors out where the compiler's own vectoriser would first ask whether dozens of pointers overlap.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from xpconv.engines.numba.kernels.memory import number_type, past_caches

I32, I64 = ir.IntType(32), ir.IntType(64)


class VectorType(types.Type):
    """Some lanes of one kind of number; or, of booleans, the answer to a comparison."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"vector({element}, {lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: VectorType) -> None:
        element = ir.IntType(1) if kind.element == types.boolean else manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


class Vectors(NamedTuple):
    """What can be done with vectors of one type; pointers count in numbers, and need no alignment."""

    load: Callable[..., Any]  # (pointer, index) -> vector
    store: Callable[..., Any]  # (pointer, index, vector)
    load_some: Callable[..., Any]  # (pointer, index, count) -> vector, 0 beyond count; memory beyond is not touched
    store_some: Callable[..., Any]  # (pointer, index, vector, count)
    splat: Callable[..., Any]  # (number) -> vector


def lane_mask(builder: Any, count: Any, lanes: int) -> Any:
    """Which lanes are below count."""
    numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, spread(builder, count, lanes))


def spread(builder: Any, number: Any, lanes: int) -> Any:
    """One number in all lanes."""
    kind = ir.VectorType(number.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(I32, 0))
    return builder.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    )


def masked(builder: Any, kind: Any, bits: int) -> tuple[Any, Any]:
    """LLVM's functions that load and store the lanes of a mask, for vectors of numbers of so many bits."""
    name = f"v{kind.count}f{bits}.p0"
    mask = ir.VectorType(ir.IntType(1), kind.count)
    pointer = kind.as_pointer()
    load = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [pointer, I32, mask, kind]), f"llvm.masked.load.{name}"
    )
    store = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [kind, pointer, I32, mask]), f"llvm.masked.store.{name}"
    )
    return load, store


def vectors(dtype: str, lanes: int) -> Vectors:
    """The functions for vectors of so many numbers of a dtype."""
    element = number_type(dtype)
    kind = VectorType(element, lanes)
    size = element.bitwidth // 8

    def place(context, builder, pointer, index):
        return builder.bitcast(builder.gep(pointer, [index]), context.get_value_type(kind).as_pointer())

    @intrinsic
    def load(typing_context, pointer, index):
        def codegen(context, builder, signature, args):
            value = builder.load(place(context, builder, *args))
            value.align = size
            return value

        return kind(pointer, types.int64), codegen

    @intrinsic
    def store(typing_context, pointer, index, vector):
        def codegen(context, builder, signature, args):
            builder.store(args[2], place(context, builder, *args[:2])).align = size
            return context.get_dummy_value()

        return types.void(pointer, types.int64, kind), codegen

    @intrinsic
    def load_some(typing_context, pointer, index, count):
        def codegen(context, builder, signature, args):
            where, vector = place(context, builder, *args[:2]), context.get_value_type(kind)
            function, _ = masked(builder, vector, size * 8)
            zeros = ir.Constant(vector, [0.0] * lanes)
            return builder.call(function, [where, ir.Constant(I32, size), lane_mask(builder, args[2], lanes), zeros])

        return kind(pointer, types.int64, types.int64), codegen

    @intrinsic
    def store_some(typing_context, pointer, index, vector, count):
        def codegen(context, builder, signature, args):
            where = place(context, builder, *args[:2])
            _, function = masked(builder, args[2].type, size * 8)
            builder.call(function, [args[2], where, ir.Constant(I32, size), lane_mask(builder, args[3], lanes)])
            return context.get_dummy_value()

        return types.void(pointer, types.int64, kind, types.int64), codegen

    @intrinsic
    def splat(typing_context, number):
        def codegen(context, builder, signature, args):
            return spread(builder, args[0], lanes)

        return kind(element), codegen

    return Vectors(load, store, load_some, store_some, splat)


@intrinsic
def store_past_caches(typing_context, pointer, index, vector):
    """As ``store``, for whole vectors of memory that nobody will read soon, aligned to their size."""

    def codegen(context, builder, signature, args):
        place = builder.bitcast(builder.gep(args[0], [args[1]]), args[2].type.as_pointer())
        past_caches(builder, builder.store(args[2], place), vector.lanes * vector.element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector), codegen


def _arithmetic(python_operator: Any, instruction: str) -> None:
    @intrinsic
    def apply(typing_context, left, right):
        def codegen(context, builder, signature, args):
            return getattr(builder, instruction)(*args)

        return left(left, right), codegen

    @overload(python_operator)
    def of_vectors(left, right):
        if isinstance(left, VectorType) and left == right:
            return lambda left, right: apply(left, right)
        return None


for _operator, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operator, _instruction)


def _comparison(python_operator: Any, sign: str, compare: str = "fcmp_ordered") -> None:
    @intrinsic
    def apply(typing_context, left, right):
        def codegen(context, builder, signature, args):
            return getattr(builder, compare)(sign, *args)

        return VectorType(types.boolean, left.lanes)(left, right), codegen

    @overload(python_operator)
    def of_vectors(left, right):
        if isinstance(left, VectorType) and left == right and left.element != types.boolean:
            return lambda left, right: apply(left, right)
        return None


for _operator, _sign in ((operator.lt, "<"), (operator.gt, ">"), (operator.ge, ">="), (operator.eq, "==")):
    _comparison(_operator, _sign)
_comparison(operator.ne, "!=", "fcmp_unordered")  # nan != nan


@intrinsic
def below(typing_context, vector, left):
    """Which lanes of a vector come before ``left``."""

    def codegen(context, builder, signature, args):
        return lane_mask(builder, args[1], vector.lanes)

    return VectorType(types.boolean, vector.lanes)(vector, types.int64), codegen


@intrinsic
def choose(typing_context, mask, yes, no):
    """``yes`` in the lanes where the comparison holds, ``no`` in the others."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return yes(mask, yes, no), codegen


@intrinsic
def multiply_add(typing_context, a, b, c):
    """``a * b + c``, rounded once where the CPU can."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        name = f"llvm.fmuladd.v{a.lanes}f{a.element.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name), args
        )

    return a(a, b, c), codegen
