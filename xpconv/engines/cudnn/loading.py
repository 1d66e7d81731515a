"""Shared libraries, loaded beforehand from where CuPy would find them: cuDNN and its frontend look in fewer places.

cuDNN looks for cuBLAS and NVRTC beside itself, by name among what is loaded, and on the system's path. Without cuBLAS
it does not raise but ends the process. The frontend looks for cuDNN itself in `LD_LIBRARY_PATH`, in one folder of
packages (no user's, no parent environment's), and then likewise by name.
"""

from __future__ import annotations

import glob
import os
import sysconfig

WHEEL = "nvidia/cudnn/lib"


def load() -> None:
    """Load what is not loaded yet; raise `ImportError` where cuDNN would end the process for want of cuBLAS."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:  # CuPy was installed without what it needs
        return
    wanted = ["cublasLt", "nvrtc", *([] if _frontend_finds_one() else ["cudnn"])]
    for name in wanted:
        try:
            load_nvidia_dynamic_lib(name)
        except (RuntimeError, ValueError) as error:  # not found; not known to this pathfinder
            if name == "cublasLt":
                raise ImportError(f"cuDNN needs cuBLAS, which is not found: {str(error).splitlines()[0]}") from error


def _frontend_finds_one() -> bool:
    """Whether the frontend finds a cuDNN by its path: a second one must not be loaded beside it."""
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    folders.append(os.path.join(sysconfig.get_path("purelib"), WHEEL))
    return any(folder and glob.glob(os.path.join(folder, "libcudnn.so*")) for folder in folders)
