"""CUDA for CuPy arrays, with what CuPy brings along: cuBLAS products and small kernels; no cuDNN.

From the outside in: `conv`, `pool`, `norm`, ... hold the primitives, which lay out arrays and launch; `choice` says
which way a convolution goes, `gemm` asks `cublas` for products, `compiled` gets kernels; `kernels/` is their source.
"""

from __future__ import annotations

try:
    import cupy
except ImportError as error:
    raise ImportError(
        f"it needs CuPy: pip install 'xpconv[cuda13]', or [cuda12] for a CUDA 12 driver ({error})"
    ) from error

from xpconv.as_real import as_real
from xpconv.engines.cupy import (
    activation,
    add,
    conv,
    dropout,
    linear,
    losses,
    maxpool,
    norm,
    pad,
    pool,
    prelu,
    resize,
    response_norm,
    rownorm,
    samplenorm,
    softmax,
    sums,
    unpool,
)
from xpconv.engines.cupy.optimizer import PRIMITIVES as UPDATES  # not reached by ops

if not cupy.cuda.is_available():
    raise ImportError("CuPy is installed, but finds no CUDA device")

_ELEMENTWISE = (activation, add, dropout, losses, prelu)
_NORMS = (norm, response_norm, rownorm, samplenorm, softmax)
_WINDOWS = (conv, maxpool, pad, pool, resize, unpool)

_OF_OPS = {
    name: primitive
    for module in (*_ELEMENTWISE, *_NORMS, *_WINDOWS, linear, sums)
    for name, primitive in module.PRIMITIVES.items()
}
PRIMITIVES = as_real(_OF_OPS) | UPDATES
