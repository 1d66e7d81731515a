"""cuDNN for CuPy arrays, by way of NVIDIA's frontend: convolutions in three directions, with what can be fused to them.

From the outside in: `conv` holds the primitives; `problem` is what a plan is looked up by, `plans` finds and runs it,
`graph` draws it for the library, `layouts` turns arrays for it, `tune` remembers which was fastest; `library` is all
that touches a device, and `loading` sees that there is one to load.
"""

from __future__ import annotations

import importlib.util

for _module, _package in (("cupy", "CuPy"), ("cudnn", "nvidia-cudnn-frontend")):
    if not importlib.util.find_spec(_module):
        raise ImportError(f"it needs {_package}: pip install 'xpconv[cudnn13]'")

import cupy  # noqa: E402 - that it is missing is told above

if not cupy.cuda.is_available():
    raise ImportError("CuPy is installed, but finds no CUDA device")

from xpconv.as_real import as_real  # noqa: E402
from xpconv.engines.cudnn import loading  # noqa: E402 - nothing of it needs what may be missing

loading.load()
try:
    from xpconv.engines.cudnn import conv, library, plans
except (OSError, AttributeError, AssertionError) as error:  # a shared library or two, a frontend that lacks something
    raise ImportError(f"cuDNN's frontend does not load here: {error}") from error

PRIMITIVES = as_real(conv.PRIMITIVES)


def facts() -> dict[str, str]:
    """What it runs on, for `xpconv info`."""
    return {"cuDNN": library.VERSION, "frontend": library.FRONTEND_VERSION, "plans": str(plans.kept())}
