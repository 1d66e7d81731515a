"""The products of cuBLAS that engines ask for by address, on column-major matrices as cuBLAS has them.

As in CuPy no function that would use the current stream takes part in a capture, and the library's C interface, which
does, is found through this module's file.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from cupy import _capture, emulation
from cupy.cuda import _cublas_interface, runtime

CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C = 0, 1, 2
CUBLAS_GEMM_DEFAULT, CUBLAS_GEMM_DEFAULT_TENSOR_OP = -1, 99
CUBLAS_DEFAULT_MATH = 0
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_COMPUTE_64F = 68, 69, 70
CUBLAS_COMPUTE_32F_FAST_TF32 = 77

_DTYPES = {
    runtime.CUDA_R_32F: np.dtype(np.float32),
    runtime.CUDA_R_64F: np.dtype(np.float64),
    runtime.CUDA_R_16F: np.dtype(np.float16),
    runtime.CUDA_R_16BF: np.dtype(ml_dtypes.bfloat16),
}
_modes: dict[int, int] = {}


def setMathMode(handle: int, mode: int) -> None:
    _modes[handle] = mode


def getMathMode(handle: int) -> int:
    return _modes.get(handle, CUBLAS_DEFAULT_MATH)


def gemmEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    B: int, Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C = alpha op(A) op(B) + beta C, all column-major."""
    gemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0,
                         beta, C, Ctype, ldc, 0, 1, computeType, algo)  # fmt: skip


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """The same for several matrices that lie a stride apart."""
    if _capture.capturing():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    product(handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB,
            beta, C, Ctype, ldc, strideC, batchCount, computeType, algo)  # fmt: skip


def product(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """What the library itself computes, and records."""
    one = np.dtype(np.float64) if computeType == CUBLAS_COMPUTE_64F else np.dtype(np.float32)
    if (one == np.float64) != (Ctype == runtime.CUDA_R_64F) or Atype != Btype:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED: these types have no product")
    if Atype != Ctype and Ctype != runtime.CUDA_R_32F:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED: these types have no product")
    if lda < (m if transa == CUBLAS_OP_N else k) or ldb < (k if transb == CUBLAS_OP_N else n) or ldc < m:
        raise RuntimeError("CUBLAS_STATUS_INVALID_VALUE: a leading dimension is too small")
    factors = (float(_host(alpha, one, (1,), (one.itemsize,))[0]), float(_host(beta, one, (1,), (one.itemsize,))[0]))

    def run() -> None:
        for i in range(batchCount):
            a = _matrix(A, Atype, lda, i * strideA, (m, k) if transa == CUBLAS_OP_N else (k, m))
            b = _matrix(B, Btype, ldb, i * strideB, (k, n) if transb == CUBLAS_OP_N else (n, k))
            c = _matrix(C, Ctype, ldc, i * strideC, (m, n))
            a, b = (a if transa == CUBLAS_OP_N else a.T).astype(one), (b if transb == CUBLAS_OP_N else b.T).astype(one)
            if computeType == CUBLAS_COMPUTE_32F_FAST_TF32 and Atype == runtime.CUDA_R_32F:
                a, b = _tf32(a), _tf32(b)
            with np.errstate(all="ignore"):
                product = a @ b if factors[0] == 1 else factors[0] * (a @ b)
                c[...] = product if factors[1] == 0 else product + factors[1] * c.astype(one)

    emulation.counts["products"] += 1
    if _capture.capturing():
        _capture.record(run)
    else:
        run()


def _matrix(address: int, kind: int, ld: int, offset: int, shape: tuple[int, int]) -> np.ndarray:
    dtype = _DTYPES[kind]
    return _host(address + offset * dtype.itemsize, dtype, shape, (dtype.itemsize, ld * dtype.itemsize))


def _host(address: int, dtype: np.dtype, shape: Any, strides: Any) -> np.ndarray:
    """The values at an address."""
    nbytes = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + dtype.itemsize if min(shape) else 0
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
    return np.ndarray(shape, dtype, memory.data, 0, strides) if nbytes else np.empty(shape, dtype)


def _tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to the 10 bits of TF32's significand."""
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


class _Module(ModuleType):
    __file__ = property(lambda self: str(_cublas_interface.library(product)))


sys.modules[__name__].__class__ = _Module
