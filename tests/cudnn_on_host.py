"""cuDNN without a GPU: its own planning, for a card described in a file, and graphs that are interpreted on the CPU.

The library plans for a device that it is only told of (`PROPERTIES`), as long as something called libcuda can be
loaded: a stub of a few lines, compiled here. What it cannot do is run a plan. `install` therefore puts an interpreter
of graphs in the place of the one call that runs them, and on the emulated CuPy the whole engine works on the host.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROPERTIES = HERE / "cudnn_devices.json"
# By compute capability, what differs from the first.
CARDS = ("sm_90", "sm_80", "sm_100")

# What the library looks up in libcuda while it plans; each answers "no device" (100), which is the truth.
_DRIVER = """
cuCtxGetCurrent cuCtxGetDevice cuCtxGetLimit cuCtxPopCurrent cuCtxPushCurrent cuDeviceGet cuDeviceGetAttribute
cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset cuDevicePrimaryCtxRetain cuFuncGetAttribute cuFuncSetAttribute
cuGetErrorName cuGetErrorString cuInit cuKernelGetAttribute cuKernelGetFunction cuKernelSetAttribute
cuLaunchCooperativeKernel cuLaunchKernel cuLaunchKernelEx cuLibraryGetKernel cuLibraryLoadData cuLibraryLoadFromFile
cuLibraryUnload cuLinkAddData cuLinkAddData_v2 cuLinkAddFile_v2 cuLinkComplete cuLinkCreate cuLinkCreate_v2
cuLinkDestroy cuMemcpyDtoH_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoadData cuModuleLoadDataEx
cuModuleLoadFatBinary cuModuleUnload cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxPotentialClusterSize
cuStreamGetCtx cuStreamGetGreenCtx cuStreamSynchronize cuTensorMapEncodeIm2col cuTensorMapEncodeTiled
"""
_LOOKUP = """
#include <string.h>
#include <dlfcn.h>
int cuDeviceGetCount(int* count) { *count = 0; return 100; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuGetProcAddress_v2(const char* name, void** found, int version, unsigned long long flags, int* status) {
  *found = dlsym(RTLD_DEFAULT, name);
  if (status) *status = *found ? 0 : 1;
  return *found ? 0 : 500;
}
int cuGetProcAddress(const char* name, void** found, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, found, version, flags, 0);
}
"""


@functools.cache
def missing() -> str:
    """Why plans cannot be made here, or nothing."""
    if not importlib.util.find_spec("cudnn"):
        return "nvidia-cudnn-frontend is not installed"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        if shutil.which("gcc") is None:
            return "neither a driver nor gcc, to compile a stub of one"
        _load_stub()
    return ""


def _load_stub() -> None:
    """Compile the stub and load it: who asks for libcuda.so.1 later finds it by that name."""
    folder = Path(tempfile.mkdtemp(prefix="stub-libcuda-"))
    try:
        lines = [f"int {name}(void) {{ return 100; }}" for name in _DRIVER.split()]
        (folder / "stub.c").write_text("\n".join([_LOOKUP, *lines]))
        library = folder / "libcuda.so.1"
        options = ["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
        subprocess.run(["gcc", *options, str(folder / "stub.c"), "-ldl"], check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    finally:
        shutil.rmtree(folder)


@functools.cache
def properties(card: str = CARDS[0]):
    """The library's own object for a card of the file."""
    import cudnn

    known = json.loads(PROPERTIES.read_text())
    return cudnn.create_device_properties(json.dumps({**known[CARDS[0]], **known[card]}))


def required() -> Any:
    """The engine, for tests that need it on the emulated CuPy; elsewhere they are skipped."""
    import pytest

    cupy = pytest.importorskip("cupy")
    if not cupy.__version__.endswith("emulated"):
        pytest.skip("not emulated here: PYTHONPATH=tests/emulated python -m pytest ...", allow_module_level=True)
    if missing():
        pytest.skip(missing(), allow_module_level=True)
    return pytest.importorskip("xpconv.engines.cudnn", exc_type=ImportError)


replaced: dict[str, Any] = {}  # what `install` put something else in place of


def install(card: str = CARDS[0]) -> None:
    """Plan for the card, and run plans by interpreting their graphs."""
    from cudnn_interpreter import execute

    from xpconv.engines.cudnn import library

    stand_ins = {
        "place": lambda device: {"device_property": properties(card)},
        "handle": lambda device: 0,
        "card": lambda device: "interpreted on the CPU",
        "execute": execute,
    }
    for name, stand_in in stand_ins.items():
        replaced.setdefault(name, getattr(library, name))
        setattr(library, name, stand_in)


def install_if_emulated() -> None:
    """On the emulated CuPy, where plans can be made: called once, before tests are collected."""
    spec = importlib.util.find_spec("cupy")
    if spec is not None and "emulated" in str(spec.origin) and not missing():
        install()
