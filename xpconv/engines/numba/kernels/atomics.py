"""What threads need to agree: sequentially consistent operations on 64-bit words, and calls by address."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I64 = ir.IntType(64)
_ORDER = "seq_cst"


def _word(builder, args):
    return builder.gep(args[0], [args[1]])


@intrinsic
def load(typing_context, pointer, index):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, args), _ORDER, 8)

    return types.int64(pointer, index), codegen


@intrinsic
def store(typing_context, pointer, index, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], _word(builder, args), _ORDER, 8)
        return context.get_dummy_value()

    return types.void(pointer, index, types.int64), codegen


@intrinsic
def add(typing_context, pointer, index, value):
    """Add, and return what was there before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(builder, args), args[2], _ORDER)

    return types.int64(pointer, index, types.int64), codegen


@intrinsic
def exchange(typing_context, pointer, index, value):
    """Put a value, and return what was there before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("xchg", _word(builder, args), args[2], _ORDER)

    return types.int64(pointer, index, types.int64), codegen


@intrinsic
def replace(typing_context, pointer, index, expected, value):
    """Put a value if the expected one is there; whether it was."""

    def codegen(context, builder, signature, args):
        pair = builder.cmpxchg(_word(builder, args), args[2], args[3], _ORDER, _ORDER)
        return builder.extract_value(pair, 1)

    return types.boolean(pointer, index, types.int64, types.int64), codegen


@intrinsic
def relax(typing_context):
    """Tell the core that this is a waiting loop (x86 `pause`, ARM `yield`; nothing elsewhere)."""

    def codegen(context, builder, signature, args):
        triple, void = builder.module.triple, ir.VoidType()
        if triple.startswith("x86_64"):
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=ir.FunctionType(void, [])), [])
        elif triple.startswith(("aarch64", "arm64")):
            hint = ir.IntType(32)
            function = builder.module.declare_intrinsic("llvm.aarch64.hint", fnty=ir.FunctionType(void, [hint]))
            builder.call(function, [ir.Constant(hint, 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_kernel(typing_context, address, args, task, slot):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, args, types.int64, types.int64), codegen


@intrinsic
def acquire(typing_context, function, lock):
    """Wait for one of Python's own low-level locks; it needs no GIL."""

    def codegen(context, builder, signature, args):
        integer = ir.IntType(32)
        kind = ir.FunctionType(integer, [I64, integer])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1], ir.Constant(integer, 1)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def release(typing_context, function, lock):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _of_system(*kinds):
    """An intrinsic that calls a function of the system by its address, with arguments of so many bits; it answers an
    int."""

    def codegen(context, builder, signature, args):
        result = ir.IntType(32)
        shape = ir.FunctionType(result, [ir.IntType(bits) for bits in kinds])
        given = [builder.trunc(a, ir.IntType(b)) if b < 64 else a for a, b in zip(args[1:], kinds, strict=True)]
        called = builder.call(builder.inttoptr(args[0], shape.as_pointer()), given)
        return builder.sext(called, I64)

    return codegen


@intrinsic
def ask(typing_context, function):
    """``int function(void)``."""
    return types.int64(types.int64), _of_system()


@intrinsic
def ask_affinity(typing_context, function, thread, size, cpus):
    """``int function(pid_t, size_t, cpu_set_t *)``."""
    return types.int64(types.int64, types.int64, types.int64, types.int64), _of_system(32, 64, 64)
