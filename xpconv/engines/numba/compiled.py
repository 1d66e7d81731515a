"""From a kernel's name and constants to the address of its machine code: from memory, from disk, or compiled now.

Numba is the compiler: it is imported only when a kernel is not on disk. Numba lowers the Python source to LLVM's
language; here it is turned into object code for the `Machine`, which llvmlite alone can load again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from xpconv import notices
from xpconv.engines.numba import store
from xpconv.engines.numba.forks import fork_safe_lock
from xpconv.engines.numba.machine import machine

# What kernels are made of besides the modules in `kernels/`: this one, and those that they import.
SOURCES = ("compiled.py", "board.py", "fields.py", "forms.py", "../../activations.py")

_lock = fork_safe_lock()
_loaded: dict[tuple[Any, ...], int] = {}
_count = itertools.count(1)  # of the kernels that this process compiles


@functools.cache
def address(module: str, factory: str, *constants: Any) -> int:
    """The machine code of ``kernels.<module>.<factory>(*constants)``."""
    key = (module, factory, *constants)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(key)
        return _loaded[key]


def _load(key: tuple[Any, ...]) -> int:
    name = "-".join(str(part) for part in key)
    version = _version()
    code = store.read(version, name)
    if code is None:
        notices.tell("compiling kernels for this CPU, once for each kind of layer: the first run waits for them")
        notices.wait(f"compiling kernel {next(_count)}")
        code = bytes(_target_machine().emit_object(_lowered(key)))
        if _digest() == version:  # the sources were not replaced, by an upgrade, while this process lived
            store.write(version, name, code)
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(_symbol(key)))


def assembly(module: str, factory: str, *constants: Any) -> str:
    """The machine code of a kernel as text, to look for spilled registers in."""
    with _lock:
        return str(_target_machine().emit_assembly(_lowered((module, factory, *constants))))


def _symbol(key: tuple[Any, ...]) -> str:
    return "xpconv_" + "_".join("".join(c if c.isalnum() else "_" for c in str(part)) for part in key)


@functools.cache
def _version() -> str:
    return _digest()


def _digest() -> str:
    """A name for all that the object code depends on besides the kernel's own constants: sources, compiler, CPU."""
    here = Path(__file__).parent
    sources = [*(here / name for name in SOURCES), *sorted((here / "kernels").glob("*.py"))]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    target = machine()
    for part in (target, metadata.version("numba"), metadata.version("llvmlite"), np.__version__):
        digest.update(repr(part).encode())
    return f"{target.name}-{digest.hexdigest()[:16]}"


@functools.cache
def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = machine()
    made = llvm.Target.from_triple(target.triple)
    return made.create_target_machine(
        cpu=target.name, features=target.features, opt=3, reloc="pic", codemodel="default"
    )


@functools.cache
def _engine() -> Any:
    """Keeps loaded object code for as long as the process lives.

    Code and its constants must lie close together: LLVM's own memory manager sees to that, however full the address
    space is.
    """
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine(), use_lmm=True)


def _lowered(key: tuple[Any, ...]) -> Any:
    """A module in LLVM's language with one function to call, ``void symbol(int64* args, int64 task, int64 slot)``."""
    import numba

    module, factory, *constants = key
    source = importlib.import_module(f"xpconv.engines.numba.kernels.{module}")
    memory = importlib.import_module("xpconv.engines.numba.kernels.memory")
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(**options)(getattr(source, factory)(*constants))
    dispatcher.compile(memory.SIGNATURE)
    code = llvm.parse_assembly(dispatcher.inspect_llvm(dispatcher.signatures[0]))
    body = next(f for f in code.functions if not f.is_declaration)
    # Numba's functions answer a status, through pointers for the result and an exception; kernels have neither.
    code.link_in(
        llvm.parse_assembly(
            f"""
            declare i32 @{body.name}(ptr, ptr, ptr, i64, i64)
            define void @{_symbol(key)}(ptr %args, i64 %task, i64 %slot) {{
                %nothing = alloca ptr
                %status = call i32 @{body.name}(ptr %nothing, ptr %nothing, ptr %args, i64 %task, i64 %slot)
                ret void
            }}"""
        )
    )
    # Numba numbers what it compiles within a process: in object code of another, the same names mean other functions.
    for part in (*code.functions, *code.global_variables):
        if not part.is_declaration and part.name != _symbol(key):
            part.linkage = "internal"
    code.verify()
    return code
