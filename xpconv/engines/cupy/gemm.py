"""Matrix products by address: cuBLAS on parts of row-major matrices, without copies, added to what is there.

CuPy's own products cannot add to their result, cut a matrix by columns without copying it, return float32 sums of half
precision, or choose TF32 for one call: its setting for that is the process's. cuBLAS adds up a product's terms one
after the other, so long sums are cut here; of equal terms every rounding has the same sign, and the error of a sum of
n terms grows like n/5 roundoffs where the bound grows like √n. Blocks of max(64, 2.5 √n) terms keep it below half the
bound for any n. Tensor cores add 8 or 16 products at a time, and what halves round at the end is larger than what
they lose on the way up to 2¹⁶ terms.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.arrays import is_half
from xpconv.engines.cupy.cublas import batched_product
from xpconv.errors import dtype_name
from xpconv.settings import current

_FACTORS = {double: np.array([0, 1], "float64" if double else "float32") for double in (False, True)}
_FACTORS_AT = {double: numbers.ctypes.data for double, numbers in _FACTORS.items()}  # to ask takes a microsecond
_LONG = 2**16  # terms of a sum on tensor cores
_NO_HALF_SUMS = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION


class Matrix(NamedTuple):
    """A row-major matrix within an array, or one of a batch of them that lie ``apart`` elements from one another."""

    array: Array
    rows: int
    columns: int
    step: int  # elements from row to row
    start: int = 0
    apart: int = 0
    turned: bool = False  # read as its transpose; rows and columns are those it has when read

    @property
    def address(self) -> int:
        return int(self.array.data.ptr) + self.start * self.array.dtype.itemsize

    @property
    def T(self) -> Matrix:  # noqa: N802 - as arrays have it
        return self._replace(rows=self.columns, columns=self.rows, turned=not self.turned)

    def part(self, rows: slice, columns: slice) -> Matrix:
        """Some rows and columns of it, as it is read."""
        along = (columns.start, rows.start) if self.turned else (rows.start, columns.start)
        start = self.start + along[0] * self.step + along[1]
        return self._replace(start=start, rows=rows.stop - rows.start, columns=columns.stop - columns.start)


def terms_of_a_block(terms: int, like: Array) -> int:
    """How many terms of a sum one product may take."""
    if is_half(like) or (fast() and dtype_name(like.dtype) == "float32"):
        return _LONG
    return max(64, math.ceil(2.5 * math.sqrt(terms) / 32) * 32)


def fast() -> bool:
    """Whether float32 products may be TF32."""
    return current().precision == "fast"


def product(a: Matrix, b: Matrix, into: Matrix, *, batch: int = 1, add: bool = False) -> None:
    """into = a @ b (+ into), in blocks of terms; of each of a batch of matrices."""
    block = terms_of_a_block(a.columns, a.array)
    if 0 < a.columns <= block:
        gemm(a, b, into, batch=batch, add=add)
        return
    everything = slice(0, a.rows), slice(0, b.columns)
    for start in range(0, a.columns, block):
        terms = slice(start, min(start + block, a.columns))
        gemm(a.part(everything[0], terms), b.part(terms, everything[1]), into, batch=batch, add=add or start > 0)


def gemm(a: Matrix, b: Matrix, into: Matrix, *, batch: int = 1, add: bool = False) -> None:
    """One product: cuBLAS sees columns where we see rows, and so computes the transpose of what it is asked for."""
    if not (into.rows and into.columns and batch):
        return
    cublas, kinds, handle = cupy.cuda.cublas, _kinds(), cupy.cuda.device.get_cublas_handle()
    left, right, result = (kinds[dtype_name(m.array.dtype)] for m in (b, a, into))
    double = dtype_name(into.array.dtype) == "float64"
    exact = cublas.CUBLAS_COMPUTE_64F if double else cublas.CUBLAS_COMPUTE_32F
    compute = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if fast() and left == kinds["float32"] else exact
    sizes = (int(b.turned), int(a.turned), into.columns, into.rows, a.columns)
    zero = _FACTORS_AT[double]
    one = zero + _FACTORS[double].itemsize
    more = one if add else zero
    half = is_half(into.array)
    before = cublas.getMathMode(handle) if half else 0
    try:
        if half:
            cublas.setMathMode(handle, _NO_HALF_SUMS)
        batched_product(
            handle, *sizes, one, b.address, left, b.step, b.apart, a.address, right, a.step, a.apart,
            more, into.address, result, into.step, into.apart, batch, compute, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip
    finally:
        if half:
            cublas.setMathMode(handle, before)


@functools.cache
def _kinds() -> dict[str, int]:
    runtime = cupy.cuda.runtime
    return {
        "float16": runtime.CUDA_R_16F,
        "bfloat16": runtime.CUDA_R_16BF,
        "float32": runtime.CUDA_R_32F,
        "float64": runtime.CUDA_R_64F,
    }
