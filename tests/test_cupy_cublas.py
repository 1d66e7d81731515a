"""cuBLAS's C interface as products into a CUDA graph call it, on CuPy as it is on a host without a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

import pytest

import xpconv

pytest.importorskip("cupy._core", reason="the real CuPy is not here")

TYPES = {"int": ctypes.c_int, "long long int": ctypes.c_longlong, "size_t": ctypes.c_size_t}


@pytest.fixture(scope="module")
def library():
    """The library by `engines/cupy/cublas.py` alone, whose package needs a GPU."""
    path = Path(xpconv.__file__).parent / "engines" / "cupy" / "cublas.py"
    spec = importlib.util.spec_from_file_location("cublas", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module._library()
    except ImportError as error:
        pytest.skip(f"cuBLAS is not here: {error}")


def test_it_is_found_through_the_module_of_cupys(library):
    version = ctypes.c_int()
    assert library.cublasGetProperty(0, ctypes.byref(version)) == 0
    assert version.value >= 12


@pytest.mark.parametrize("name", ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmStridedBatchedEx"])
def test_arguments_are_those_of_the_header(library, name):
    pathfinder = pytest.importorskip("cuda.pathfinder")
    folder = pathfinder.find_nvidia_header_directory("cublas")
    if folder is None:
        pytest.skip("cuBLAS's headers are not here")
    header = (Path(folder) / "cublas_api.h").read_text()
    (declared,) = re.findall(rf"^cublasStatus_t CUBLASWINAPI {name}\((.*?)\);", header, re.MULTILINE | re.DOTALL)
    expected = []
    for parameter in declared.split(","):
        kind = " ".join(parameter.replace("*", " * ").split()[:-1])
        pointer = "*" in kind or kind in ("cublasHandle_t", "cudaStream_t")
        expected.append(ctypes.c_void_p if pointer else TYPES.get(kind, ctypes.c_int))  # all others are enums
    assert list(getattr(library, name).argtypes) == expected
