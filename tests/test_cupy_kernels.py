"""Every CUDA source compiles for every card it may meet, by NVRTC, which needs neither a GPU nor a driver."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

import pytest

import xpconv

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is called through cuda-bindings, which is not here")

FOLDER = Path(xpconv.__file__).parent / "engines" / "cupy"
DTYPES = ("float16", "bfloat16", "float32", "float64")
MODULES = sorted(path.stem for path in (FOLDER / "kernels").glob("*.cu"))
CUPYS_OWN = ("-ftz=true", "--device-as-default-execution-space")  # what CuPy compiles every kernel with
VECTOR = {"float16": 8, "bfloat16": 8, "float32": 4, "float64": 2}


@functools.cache
def compiled_module():
    """`engines/cupy/compiled.py` by itself: its package needs a GPU, putting sources together does not."""
    pytest.importorskip("cupy")
    spec = importlib.util.spec_from_file_location("compiled", FOLDER / "compiled.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def include_folders() -> tuple[str, ...]:
    """Where CUDA's half-precision headers are, as CuPy itself looks for them."""
    pathfinder = pytest.importorskip("cuda.pathfinder")
    found = pathfinder.find_nvidia_header_directory("cudart")
    if found is None:
        pytest.skip("CUDA's headers are not here: pip install nvidia-cuda-runtime")
    return (found,)


def checked(answer):
    status, *values = answer
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, status
    return values[0] if values else None


def compile_for(architecture: str, source: str) -> bytes:
    """The cubin of a source, or a failure with NVRTC's own words."""
    try:
        program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    except RuntimeError as error:  # the library itself is missing
        pytest.skip(f"NVRTC is not here: {error}")
    options = [*compiled_module().OPTIONS, *(f"-I{folder}" for folder in include_folders()), *CUPYS_OWN]
    options.append(f"-arch={architecture}")
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.decode().strip("\0\n ")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, text
    assert not text, text  # nor a warning
    cubin = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return bytes(cubin)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile(module, dtype):
    """Both index types, one channel a thread and a vector of them, spread over the architectures."""
    source = functools.partial(compiled_module().source, module, dtype)
    wide = VECTOR[dtype]
    for architecture, index, width in (
        ("sm_80", "int", wide),
        ("sm_90", "long long", wide),
        ("sm_100", "int", 1),
    ):
        cubin = compile_for(architecture, source(index, width))
        for name in compiled_module().kernel_names(module):
            assert name.encode() in cubin, f"{name} is not in what {architecture} got"


def test_every_file_of_kernels_is_shipped_and_used():
    launched = "\n".join(path.read_text() for path in FOLDER.glob("*.py"))
    for module in MODULES:
        assert re.search(rf'"{module}"', launched), f"nothing launches {module}.cu"
        for name in compiled_module().kernel_names(module):
            stem = re.escape(name.removesuffix("byte").removesuffix("int"))
            assert re.search(rf'"{stem}["{{]', launched), f"nothing launches {name} of {module}.cu"
