"""Memory by address: typed pointers, and the numba types that go by the names of dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
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


@intrinsic
def clear_line(typing_context, address):
    """Write zeros to the 64 bytes at an address that is a multiple of that, past the caches: nothing is read first."""

    def codegen(context, builder, signature, args):
        number = ir.IntType(32)
        line = ir.VectorType(number, 16)
        store = builder.store(ir.Constant(line, [0] * 16), builder.inttoptr(args[0], line.as_pointer()))
        store.align = 64
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(number, 1)]))
        return context.get_dummy_value()

    return types.void(types.int64), codegen
