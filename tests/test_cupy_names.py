"""What is taken for granted of CuPy, held to CuPy itself as far as that shows on a host without a GPU."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cupy._core", reason="the real CuPy is not here")
import cupy

ROOT = Path(__file__).parent.parent
FILES = [
    *(ROOT / "xpconv" / "engines" / "cupy").glob("*.py"),
    *(ROOT / "xpconv" / "engines" / "cudnn").glob("*.py"),
    ROOT / "xpconv" / "bench" / "devices" / "cupy.py",
    *(ROOT / "bench").glob("gpu*.py"),
]


def paths(file: Path) -> Iterator[str]:
    """Every name that is asked of ``cupy`` in a file, as ``cuda.Stream``."""
    for node in ast.walk(ast.parse(file.read_text())):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "cupy":
            yield ".".join(reversed(parts))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_name_is_there(file):
    for path in paths(file):
        found = cupy
        for name in path.split("."):
            if name == "emulation":  # by which the stand-in is told apart
                break
            assert hasattr(found, name), f"cupy.{path}"
            found = getattr(found, name)


def test_an_array_is_no_index_and_a_profiler_takes_a_name():
    """The stand-in is as strict: see `tests/test_emulated_cupy.py`."""
    from cupyx.profiler import benchmark

    assert not hasattr(cupy.ndarray, "__index__")
    assert inspect.signature(benchmark).parameters["name"].kind is inspect.Parameter.KEYWORD_ONLY


def test_constants_of_products_are_there():
    cublas, runtime = cupy.cuda.cublas, cupy.cuda.runtime
    for name in ("COMPUTE_64F", "COMPUTE_32F", "COMPUTE_32F_FAST_TF32", "GEMM_DEFAULT"):
        assert isinstance(getattr(cublas, f"CUBLAS_{name}"), int)
    assert (runtime.CUDA_R_16F, runtime.CUDA_R_16BF, runtime.CUDA_R_32F, runtime.CUDA_R_64F) == (2, 14, 0, 1)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(True, "bool"), (7, "int64"), (0.5, "float64"), (np.int32(7), "int32"), (np.uint64(0), "uint64")],
)
def test_scalars_reach_kernels_in_the_size_that_their_signatures_have(value, dtype):
    scalar = pytest.importorskip("cupy._core._scalar")
    assert scalar.CScalar(value).dtype == np.dtype(dtype)


def test_devices_have_no_hash_and_streams_of_others_are_not_destroyed():
    class Theirs:
        def __cuda_stream__(self):
            return 0, 77

    with pytest.raises(TypeError, match="unhashable"):
        hash(cupy.cuda.Device(0))
    assert cupy.cuda.Device(1) == cupy.cuda.Device(1) != cupy.cuda.Device(0)
    stream = cupy.cuda.Stream.from_external(Theirs())
    assert (stream.ptr, stream.device_id) == (77, -1)
