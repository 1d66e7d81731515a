"""cuBLAS's batched product, also into a CUDA graph.

CuPy calls no cuBLAS at all while a stream is captured, though the library itself lets products be captured. There it is
called by its C interface, with CuPy's handle, through the very module of CuPy's that is linked to it.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_int, c_longlong, c_size_t, c_void_p
from typing import Any

import cupy

# As large as the one that cuBLAS has outside of a graph, by compute capability, so that it chooses the same algorithm.
# Its own would become an allocation within the graph at every product; this is of the memory that the graph has anyway.
_WORKSPACES = ((90, 32 * 2**20), (0, 8 * 2**20 + 128 * 2**10))


def batched_product(handle: int, *args: Any) -> None:
    """`cublasGemmStridedBatchedEx` on the current stream."""
    try:
        cupy.cuda.cublas.gemmStridedBatchedEx(handle, *args)
    except NotImplementedError:  # so CuPy says it, before it has called anything
        _captured_product(handle, args)


def _captured_product(handle: int, args: tuple[Any, ...]) -> None:
    library, stream = _library(), cupy.cuda.get_current_stream().ptr
    capability = int(cupy.cuda.device.get_compute_capability())
    size = next(size for least, size in _WORKSPACES if capability >= least)
    workspace = cupy.cuda.alloc(size)
    _check(library.cublasSetStream_v2(handle, stream))
    try:
        _check(library.cublasSetWorkspace_v2(handle, workspace.ptr, size))
        _check(library.cublasGemmStridedBatchedEx(handle, *args))
    finally:
        _check(library.cublasSetStream_v2(handle, stream))  # which takes the workspace from the handle


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS refuses a product while a stream is captured: status {status}")


@functools.cache
def _library() -> Any:
    """The library with the types of what is called: a symbol is looked for in all that a module is linked to."""
    library = ctypes.CDLL(cupy.cuda.cublas.__file__)
    library.cublasSetStream_v2.argtypes = (c_void_p, c_void_p)
    library.cublasSetWorkspace_v2.argtypes = (c_void_p, c_void_p, c_size_t)
    matrix = (c_void_p, c_int, c_int, c_longlong)
    library.cublasGemmStridedBatchedEx.argtypes = (
        *(c_void_p, *(c_int,) * 5, c_void_p),  # handle, operations, sizes, alpha
        *matrix,
        *matrix,
        c_void_p,  # beta
        *matrix,
        *(c_int,) * 3,  # matrices, compute type, algorithm
    )
    return library
