"""The least that any call can cost from Python: one CUDA kernel launched by CuPy, its result made beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.backend import get
from xpconv.bench.candidate import Candidate, NotOfferedError, waiting
from xpconv.bench.case import Case
from xpconv.bench.sides import ours
from xpconv.bench.sides.placed import host
from xpconv.settings import current

version, device = ours.version, ours.device
_THREADS = 128  # in a block
_RELU = r"""
extern "C" __global__ void relu(const float* x, float* y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] > 0 ? x[i] : 0;
}
"""


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """ReLU forward in float32."""
    if (case.layer.op, case.direction, case.dtype) != ("relu", "forward", "float32"):
        raise NotOfferedError("ReLU forward in float32 only")
    if current().backend.partition(":")[0] != "cupy":
        raise NotOfferedError("needs the backend cupy")
    from xpconv.bench.devices import cupy

    x = get(current().backend).asarray(arrays["x"])
    return [_candidate(cupy.kernel(_RELU, "relu"), x, x * 0)]


def _candidate(kernel: Any, x: Any, y: Any) -> Candidate:
    blocks, n = -(-x.size // _THREADS), np.int32(x.size)

    def call() -> Any:
        kernel((blocks,), (_THREADS,), (x, y, n))
        return y

    return Candidate("RawKernel", call, lambda: {"y": host(call())}, waiting(x))
