"""Kernels for NumPy arrays on the CPU, compiled by numba when first wanted and kept on disk.

From the outside in: `pool`, `norm`, ... hold the primitives, which check what a kernel can take, lay out its arguments and
run it; `team` runs it on threads; `compiled` gets its machine code, from `store` on disk where it can; `kernels/` is
the source that is compiled. `machine` knows the CPU, `scratch` lends memory.
"""

from __future__ import annotations

try:
    import llvmlite  # noqa: F401
except ImportError as error:
    raise ImportError("it needs numba: pip install 'xpconv[cpu]'") from error

from xpconv.engines.numba import activation, norm, pool, softmax

PRIMITIVES = {
    name: primitive
    for module in (activation, norm, pool, softmax)
    for name, primitive in module.PRIMITIVES.items()
}
