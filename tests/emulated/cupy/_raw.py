"""Kernels from CUDA C++ source: compiled by g++ against `host/`, checked against their signature, run on the CPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cupy import _capture, cuda, emulation
from cupy._array import ndarray

_HOST = Path(__file__).parent / "host"
_FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", "-fno-strict-aliasing")
_FLAGS += ("-fno-gnu-unique",)  # lest shared memory of two sources be one place
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(')


class CompileException(Exception):
    """g++ did not take the source."""


class RawModule:
    """CUDA source whose kernels are `extern "C"`; what NVRTC would be told in ``options`` g++ is told."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **unknown: Any) -> None:
        if unknown:
            raise NotImplementedError(f"the emulated RawModule takes no {', '.join(unknown)}")
        self.code, self.options = code, options

    def get_function(self, name: str) -> Function:
        return Function(_library(self.code, self.options), name)

    def compile(self, log_stream: Any = None) -> None:
        _library(self.code, self.options)


class Function:
    """A kernel, ready to be launched: ``kernel(grid, block, args)``."""

    def __init__(self, library: ctypes.PyDLL, name: str) -> None:
        self._launch = getattr(library, f"emulated_launch_{name}")
        self._launch.restype = ctypes.c_char_p
        self.name = name
        text = ctypes.create_string_buffer(1024)
        getattr(library, f"emulated_tell_{name}")(text)
        self._kinds = text.value.decode().split()

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], **options: Any) -> None:
        if options.pop("shared_mem", 0) or any(v is not None for v in options.values()):
            raise NotImplementedError("the emulated launch takes a grid, a block and arguments")
        dims = (*(tuple(grid) + (1, 1))[:3], *(tuple(block) + (1, 1))[:3])
        _check_dims(self.name, dims)
        if len(args) != len(self._kinds):
            raise TypeError(f"{self.name} takes {len(self._kinds)} arguments, not {len(args)}")
        values = [
            _argument(self.name, i, kind, arg) for i, (kind, arg) in enumerate(zip(self._kinds, args, strict=True))
        ]
        kept = (tuple(args), values)
        emulation.counts["launches"] += 1
        _capture.note((self.name, self))
        if _capture.capturing():
            _capture.record(lambda: self._run(dims, *kept))
        else:
            self._run(dims, *kept)

    def _run(self, dims: tuple[int, ...], args: tuple[Any, ...], values: list[np.ndarray]) -> None:
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        from_the_last = emulation.counts["runs"] % 2 if emulation.from_the_last is None else emulation.from_the_last
        emulation.counts["runs"] += 1
        problem = self._launch(pointers, (ctypes.c_uint * 6)(*dims), ctypes.c_bool(from_the_last))
        if problem:
            raise RuntimeError(f"{self.name}: {problem.decode()}")
        for i, arg in enumerate(args):
            if isinstance(arg, ndarray) and arg._memory is not None and not arg._memory.intact():
                raise RuntimeError(f"{self.name} wrote outside the memory of an array: argument {i} or one beside it")


class RawKernel:
    """One kernel of a source."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **unknown: Any
    ) -> None:
        self._module, self.name = RawModule(code=code, options=options, backend=backend, **unknown), name

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], **options: Any) -> None:
        self._module.get_function(self.name)(grid, block, args, **options)


def _check_dims(name: str, dims: tuple[int, ...]) -> None:
    limits = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
    if any(not 1 <= n <= most for n, most in zip(dims, limits, strict=True)) or dims[3] * dims[4] * dims[5] > 1024:
        raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {name} launched with grid {dims[:3]} and block {dims[3:]}")


def _argument(name: str, i: int, kind: str, arg: Any) -> np.ndarray:
    """The bytes of an argument, if it is what the signature says."""
    if isinstance(arg, ndarray):
        given = "P" + _kind(arg.dtype)
        if arg._device_id != cuda.current_device_id():
            raise ValueError(f"{name}: argument {i} lives on another device than the current one")
        if not arg.flags.c_contiguous:
            raise ValueError(f"{name}: argument {i} is not contiguous")
        value = np.array(arg._host.ctypes.data, dtype=np.uint64)
    elif isinstance(arg, np.ndarray) and arg.size == 1 and arg.dtype.kind == "V":
        given, value = f"V{arg.dtype.itemsize}", np.ascontiguousarray(arg)
    elif isinstance(arg, (bool, int, float, np.generic)):  # CuPy takes Python's for bool, long long and double
        value = np.asarray(arg)
        given = _kind(value.dtype)
    else:
        raise TypeError(f"{name}: argument {i} is a {type(arg)}")
    if kind.startswith("P") and given == "u8" and not value:
        given = kind  # a null pointer
    if given != kind:
        raise TypeError(f"{name}: argument {i} is {given} where the kernel has {kind}")
    return value


def _kind(dtype: np.dtype) -> str:
    return "bf2" if dtype.name == "bfloat16" else dtype.str[1:]


def compiler() -> str | None:
    return shutil.which("g++")


@cache
def _library(code: str, options: tuple[str, ...]) -> ctypes.PyDLL:
    names = _KERNEL.findall(code)
    source = "\n".join(['#include "cuda_emulation.h"', code, *map(_entry_points, names)])
    headers = "".join(path.read_text() for path in sorted(_HOST.iterdir()))
    defines = tuple(option for option in options if option.startswith("-D"))
    path = compiled(source, defines, headers)
    return ctypes.PyDLL(str(path))  # one launch at a time: their state is the library's


def compiled(source: str, defines: tuple[str, ...] = (), headers: str = "") -> Path:
    """The library that g++ makes of a source, kept from one run to the next."""
    digest = hashlib.sha256("\0".join((source, headers, *defines, *_FLAGS)).encode()).hexdigest()[:32]
    path = emulation.cache_folder() / f"{digest}.so"
    if not path.exists():
        _compile(source, defines, path)
    return path


def _entry_points(name: str) -> str:
    return (
        f'extern "C" void emulated_tell_{name}(char *out) {{ emulated::tell(&{name}, out); }}\n'
        f"static void emulated_call_{name}(void **args) {{ emulated::call(&{name}, args); }}\n"
        f'extern "C" const char *emulated_launch_{name}(void **args, const unsigned *dims, bool from_the_last) '
        f"{{ return emulated::launch(&emulated_call_{name}, args, dims, from_the_last); }}\n"
    )


def _compile(source: str, defines: tuple[str, ...], path: Path) -> None:
    found = compiler()
    if found is None:
        raise CompileException("the emulated CuPy compiles kernels with g++, which is not here")
    handle, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    command = [found, *_FLAGS, f"-I{_HOST}", *defines, "-x", "c++", "-", "-o", made]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    if done.returncode:
        os.unlink(made)
        raise CompileException(done.stderr)
    os.replace(made, path)
