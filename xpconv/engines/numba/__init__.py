"""Kernels for NumPy arrays on the CPU, compiled by numba when first wanted and kept on disk.

From the outside in: `pool`, `norm`, ... hold the primitives, which check what a kernel can take, lay out its arguments
and run it; `team` runs it on threads; `compiled` gets its machine code, from `store` on disk where it can; `kernels/`
is the source that is compiled. `machine` knows the CPU, `scratch` lends memory.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata

from xpconv.as_real import as_real

if not all(map(importlib.util.find_spec, ("llvmlite", "numba"))):
    raise ImportError("it needs numba: pip install 'xpconv[cpu]'")
if tuple(map(int, metadata.version("numba").split(".")[:2])) < (0, 62):  # whose LLVM still has typed pointers
    raise ImportError(f"it needs numba 0.62, not {metadata.version('numba')}: pip install 'xpconv[cpu]'")

try:
    from xpconv.engines.numba import (
        activation,
        add,
        conv,
        dropout,
        groupnorm,
        linear,
        loss,
        machine,
        norm,
        pad,
        parts,
        pool,
        prelu,
        resize,
        responsenorm,
        reuse,
        rownorm,
        scratch,
        softmax,
        store,
        sums,
        team,
        update,
    )
except OSError as error:  # llvmlite's own library
    raise ImportError(f"numba's compiler does not load here: {error}") from error

PRIMITIVES = as_real(
    {
        name: primitive
        for module in (
            *(activation, add, conv, dropout, groupnorm, linear, loss, norm, pad, parts),
            *(pool, prelu, resize, responsenorm, rownorm, softmax, sums, update),
        )
        for name, primitive in module.PRIMITIVES.items()
    }
)

team.start()  # where numba itself cannot be imported, this raises ImportError, and no op need find out


def release() -> None:
    """Let memory go that waits to be used again."""
    reuse.outputs.clear()
    scratch.clear()


def facts() -> dict[str, str]:
    """What it runs on, for `xpconv info`."""
    cpu = machine.machine()
    return {"CPU": f"{cpu.name}, {8 * cpu.vector_bytes}-bit vectors", "kernels kept in": store.where()}
