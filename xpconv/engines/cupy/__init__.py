"""CUDA for CuPy arrays, with what CuPy brings along: cuBLAS products and small kernels; no cuDNN.

From the outside in: `conv`, `pool`, `norm`, ... hold the primitives, which lay out arrays and launch; `choice` says
which way a convolution goes, `gemm` asks cuBLAS for products, `compiled` gets kernels; `kernels/` is their source.
"""

from __future__ import annotations

try:
    import cupy
except ImportError as error:
    raise ImportError(
        f"it needs CuPy: pip install 'xpconv[cuda13]', or [cuda12] for a CUDA 12 driver ({error})"
    ) from error

from xpconv.driver import cuda
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
    softmax,
    sums,
    unpool,
)
from xpconv.engines.cupy.optimizer import PRIMITIVES as UPDATES  # not reached by ops

if not cupy.cuda.is_available():
    raise ImportError("CuPy is installed, but finds no CUDA device")

_ELEMENTWISE = (activation, add, dropout, losses, prelu)
_NORMS = (norm, response_norm, rownorm, softmax)
_WINDOWS = (conv, maxpool, pad, pool, resize, unpool)

PRIMITIVES = {
    name: primitive
    for module in (*_ELEMENTWISE, *_NORMS, *_WINDOWS, linear, sums)
    for name, primitive in module.PRIMITIVES.items()
} | UPDATES


def facts() -> dict[str, str]:
    """What it runs on, for `xpconv info`."""
    device, runtime = cupy.cuda.Device(), cupy.cuda.runtime
    name = runtime.getDeviceProperties(device.id)["name"].decode()
    versions = (runtime.runtimeGetVersion(), runtime.driverGetVersion())
    used, driver = map(cuda, versions)
    capability = ".".join((device.compute_capability[:-1], device.compute_capability[-1]))
    return {"GPU": f"{name}, compute capability {capability}", "CUDA": f"{used}, driver {driver}"}
