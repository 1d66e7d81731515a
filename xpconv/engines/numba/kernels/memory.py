"""Memory by address: typed pointers, and the numba types that go by the names of dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORDS = types.CPointer(types.int64)
SIGNATURE = types.void(WORDS, types.int64, types.int64)  # of every kernel: args, task, slot


def number_type(dtype: str) -> Any:
    """The numba type of a dtype's name."""
    return getattr(types, dtype)


def pointers(element: Any) -> Callable[[int], Any]:
    """A function from an address to a pointer to elements of that type; ``p[i]`` reads and writes, unchecked."""
    pointer = types.CPointer(element)

    @intrinsic
    def at(typing_context, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return at


words = pointers(types.int64)


def past_caches(builder: Any, store: Any, nbytes: int) -> None:
    """Have an LLVM store, whose address is a multiple of its bytes, go past the caches: nothing is read first."""
    store.align = nbytes
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


@intrinsic
def clear_line(typing_context, address):
    """Write zeros to the 64 bytes at an address that is a multiple of that, past the caches: nothing is read first."""

    def codegen(context, builder, signature, args):
        number = ir.IntType(32)
        line = ir.VectorType(number, 16)
        place = builder.inttoptr(args[0], line.as_pointer())
        past_caches(builder, builder.store(ir.Constant(line, [0] * 16), place), 64)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def fetched(builder: Any, place: Any, write: bool, near: int) -> None:
    """Have the cache line of a byte brought as near as that says, 3 for the first cache."""
    flag = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), flag, flag, flag])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [place, *(ir.Constant(flag, value) for value in (int(write), near, 1))])


@intrinsic
def fetch(typing_context, pointer, index):
    """Have the cache line of a number brought near; one that lies beyond an array does no harm."""

    def codegen(context, builder, signature, args):
        fetched(builder, builder.bitcast(builder.gep(args[0], [args[1]]), ir.IntType(8).as_pointer()), False, near=3)
        return context.get_dummy_value()

    return types.void(pointer, types.int64), codegen
