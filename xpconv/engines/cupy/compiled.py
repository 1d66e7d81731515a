"""Kernels by file and name: compiled by CuPy for the current device when first wanted, launched on its current stream.

A source is put together of what its arrays hold: the dtype's few lines, `Index` (32 bits, 64 for arrays of 2³⁰ elements
and more) and WIDTH, then the files that it shares with others, then its own. CuPy keeps what NVRTC made of it on disk.
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from xpconv import notices
from xpconv.backend import Array
from xpconv.errors import dtype_name

_FOLDER = Path(__file__).parent / "kernels"
_SHARED = ("common", "slabs", "teams", "window", "activation")
_ALSO = dict.fromkeys(("norm", "norm_back", "norm_tiles"), ("norms",))  # what a few files share
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\w+\)\s)?(\w+)\(')
_EXACT = ("optimizer",)  # products and sums round one by one, as formulas on arrays do

_BLOCK = 256
_MOST_BLOCKS = 2**20  # more elements are walked in strides, so that 32-bit indices of 2³⁰ elements do not overflow
_WIDE_FROM = 2**30
VECTOR = 16  # bytes that one instruction loads

NULL = np.uint64(0)  # the pointer to an array that is not there

DTYPES = ("float16", "bfloat16", "float32", "float64")


def modules() -> list[str]:
    """The names of all files of kernels."""
    return sorted(path.stem for path in _FOLDER.glob("*.cu"))


@functools.cache
def source(module: str, dtype: str, index: str = "int", width: int = 1) -> str:
    """The CUDA C++ of a file of kernels for a dtype, an index type and a number of neighbours."""
    head = (_FOLDER / f"{dtype}.cuh").read_text()
    constants = f"typedef {index} Index;\nconstexpr int WIDTH = {width};\n"
    files = (*(f"{name}.cuh" for name in (*_SHARED, *_ALSO.get(module, ()))), f"{module}.cu")
    return "\n".join((head, constants, *((_FOLDER / name).read_text() for name in files)))


@functools.cache
def kernel_names(module: str) -> list[str]:
    """The kernels that a file has."""
    return _KERNEL.findall((_FOLDER / f"{module}.cu").read_text())


def options(module: str) -> tuple[str, ...]:
    """What the compiler is told for a file, beside what CuPy tells it for every one."""
    return ("-std=c++17", "--fmad=false") if module in _EXACT else ("-std=c++17",)


_count = itertools.count(1)  # of the kernels that this process has asked for


@functools.cache
def _kernel(device: int, module: str, name: str, dtype: str, index: str, width: int) -> Any:
    notices.wait(f"getting CUDA kernel {next(_count)} ready")  # a second or two where CuPy has not kept it
    return cupy.RawModule(code=source(module, dtype, index, width), options=options(module)).get_function(name)


def kernel(module: str, name: str, dtype: str, largest: int, width: int = 1) -> Any:
    """A kernel for the current device; ``largest`` is how many elements the largest array has."""
    index = "int" if largest < _WIDE_FROM else "long long"
    return _kernel(cupy.cuda.runtime.getDevice(), module, name, dtype, index, width)


def launch(
    module: str, name: str, like: Array, items: int, *args: Any, largest: int | None = None, width: int = 1
) -> None:
    """Launch a kernel that walks over ``items``; `None` among its arguments is a null pointer."""
    if items:
        compiled = kernel(module, name, dtype_name(like.dtype), items * width if largest is None else largest, width)
        compiled((min(-(-items // _BLOCK), _MOST_BLOCKS),), (_BLOCK,), pointers(args))


def pointers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as a launch takes them."""
    return tuple(NULL if arg is None else arg for arg in args)


def integers(*numbers: int) -> tuple[Any, ...]:
    """Sizes as kernels take them: long long."""
    return tuple(map(np.int64, numbers))


def width_of(channels: int, *arrays: Array | None, most: int = VECTOR) -> int:
    """Neighbouring channels that a thread takes: a vector of them if their number and addresses allow it, else 1.

    ``most`` bounds it for kernels that keep several numbers for each channel, lest these fill the registers.
    """
    given = [x for x in arrays if x is not None]
    width = min(VECTOR // given[0].dtype.itemsize, most)
    fits = channels % width == 0 and all(x.data.ptr % (width * x.dtype.itemsize) == 0 for x in given)
    return width if fits else 1
