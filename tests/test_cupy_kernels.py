"""Every CUDA source compiles for every card it may meet, by NVRTC, which needs neither a GPU nor a driver."""

from __future__ import annotations

import functools
import importlib.util
import re
import struct
from pathlib import Path

import pytest

import xpconv

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is called through cuda-bindings, which is not here")

FOLDER = Path(xpconv.__file__).parent / "engines" / "cupy"
DTYPES = ("float16", "bfloat16", "float32", "float64")
MODULES = sorted(path.stem for path in (FOLDER / "kernels").glob("*.cu"))
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
def options_for(module: str) -> list[str]:
    """What CuPy tells NVRTC for a file of ours, but for the architecture: its own half it assembles itself."""
    core = pytest.importorskip("cupy._core.core", reason="the real CuPy is not here")
    try:
        assembled = core.assemble_cupy_compiler_options(compiled_module().options(module))
    except RuntimeError as error:  # as of missing headers
        pytest.skip(str(error))
    return [*assembled, "-ftz=true", "--device-as-default-execution-space"]  # as in cupy/cuda/compiler.py


def checked(answer):
    status, *values = answer
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, status
    return values[0] if values else None


def compile_for(architecture: str, source: str, options: list[str]) -> bytes:
    """The cubin of a source (for a virtual architecture its PTX), or a failure with NVRTC's own words."""
    try:
        program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    except RuntimeError as error:  # the library itself is missing
        pytest.skip(f"NVRTC is not here: {error}")
    options = [*options, f"-arch={architecture}"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.decode().strip("\0\n ")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, text
    assert not text, text  # nor a warning
    kind = "PTX" if architecture.startswith("compute") else "CUBIN"
    code = bytearray(checked(getattr(nvrtc, f"nvrtcGet{kind}Size")(program)))
    getattr(nvrtc, f"nvrtcGet{kind}")(program, code)
    return bytes(code)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile(module, dtype):
    """Both index types, one channel a thread and a vector of them, spread over the architectures.

    Whole vectors stay in registers: the compiler may trade a few bytes of a thread for another block on a processor.
    """
    source = functools.partial(compiled_module().source, module, dtype)
    wide = VECTOR[dtype]
    for architecture, index, width in (
        ("sm_80", "long long", min(wide, 4)),
        ("sm_90", "int", wide),
        ("sm_100", "int", 1),
    ):
        cubin = compile_for(architecture, source(index, width), options_for(module))
        for name in compiled_module().kernel_names(module):
            assert name.encode() in cubin, f"{name} is not in what {architecture} got"
        if architecture == "sm_90":
            assert max(frames(cubin)) <= 8, f"a thread spills {max(frames(cubin))} bytes"


def frames(cubin: bytes) -> list[int]:
    """What each function of a cubin keeps in memory for a thread: EIATTR_FRAME_SIZE in its section `.nv.info`."""
    (start,), (size, count, names) = struct.unpack_from("<Q", cubin, 0x28), struct.unpack_from("<3H", cubin, 0x3A)
    headers = [struct.unpack_from("<II16xQQ", cubin, start + i * size) for i in range(count)]
    (info,) = (
        cubin[at : at + length]
        for name, _, at, length in headers
        if cubin[headers[names][2] + name :].startswith(b".nv.info\0")
    )
    found, at = [], 0
    while at < len(info):
        form, attribute, length = struct.unpack_from("<BBH", info, at)
        if (form, attribute) == (4, 0x11):
            found.append(struct.unpack_from("<I", info, at + 8)[0])
        at += 4 + (length if form == 4 else 0)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_optimizer_updates_round_every_product(dtype):
    """Between reading and writing an element nothing is fused; `.rn` bars the assembler from fusing later.

    Adam's powers of the betas are not looked at: they are of a step, and CUDA's `pow` is made of fused operations.
    """
    source, options = compiled_module().source("optimizer", dtype), options_for("optimizer")
    computed = "f64" if dtype == "float64" else "f32"

    def instructions(options: list[str]) -> str:
        text = compile_for("compute_90", source, options).decode()
        start = text.index(".entry sgd")
        kernel = text[start : text.find(".entry", start + 1)] if computed == "f64" else text
        return "\n".join(re.findall(rf"^\s*(\w[\w.]*{computed})\s", kernel, re.MULTILINE))

    exact, fused = instructions(options), instructions([option for option in options if option != "--fmad=false"])
    assert "fma" in fused, "without the option there is nothing to see here"
    assert "fma" not in exact
    arithmetic = re.findall(r"^(?:mul|add|sub|div|sqrt)\..*", exact, re.MULTILINE)
    assert arithmetic
    assert all(".rn" in instruction for instruction in arithmetic), arithmetic


# What a model runs through in training, with how many arrays each reads in whole vectors at least.
HOT = {
    "columns": {"to_columns": 1},
    "dropout": {"drop": 1, "drop_back": 1},
    "elementwise": {"forward": 1, "backward": 2, "add": 2},
    "epilogue": {"finish": 3},
    "losses": {"back": 2, "slab_sums": 2},
    "maxpool": {"largest_by_byte": 1},
    "norm": {"moments": 1, "normalise": 2},
    "norm_back": {"gradient_sums": 2, "joined_gradient_sums": 3, "gradient": 2},
    "norm_tiles": {"normalise_tiles": 1, "gradient_tiles": 2},
    "prelu": {"forward": 2, "back": 2},
    "rownorm": {"normalise_rows": 1, "gradient_rows": 2, "gradient_slabs": 2},
    "softmax": {"softmax": 1, "softmax_back": 2, "cross_entropy": 1, "cross_entropy_back": 1},
    "sums": {"slab_sums": 1, "gradient_slab_sums": 2},
}


@pytest.mark.parametrize("module", HOT)
def test_hot_kernels_load_vectors_divide_nothing_and_keep_to_registers(module):
    """An index from a division costs as much as several loads, a number alone a quarter of what a load could bring."""
    text = compile_for(
        "compute_90", compiled_module().source(module, "float32", "int", 4), options_for(module)
    ).decode()
    kernels = dict(re.findall(r"\.entry (\w+)\((.*?)\n}", text, re.DOTALL))
    for name, arrays in HOT[module].items():
        code = kernels[name]
        assert not re.findall(r"\b(?:div|rem)\.[su](?:32|64)", code), f"{name} divides integers"
        assert len(re.findall(r"ld\.global\.(?:nc\.)?v4", code)) >= arrays, f"{name} loads no vectors"
        assert ".local" not in code, f"{name} keeps an array in memory"
        if module != "losses" and name not in ("cross_entropy", "slab_sums", "gradient_sums", "moments"):
            assert "st.global.v4" in code, f"{name} stores no vectors"


@pytest.mark.parametrize("module", ["rownorm", "softmax"])
def test_teams_leave_their_threads_the_registers_they_take(module):
    """65536 are a block's: with more threads than a kernel is bounded to, it may not start at all."""
    teams = (FOLDER / "kernels" / "teams.cuh").read_text()
    (most,) = re.findall(r"_MOST_THREADS = (\d+)", (FOLDER / "rows.py").read_text())
    assert f"MOST_THREADS = {most} " in teams
    launched = re.findall(r'launch_rows\("\w+", "(\w+)"', (FOLDER / f"{module}.py").read_text())
    launched += ["softmax", "softmax_back"] if module == "softmax" else ["gradient_slabs"]  # by `_lines`, `RowSlabs`
    text = compile_for("compute_90", compiled_module().source(module, "float32"), options_for(module)).decode()
    for name in launched:
        assert re.search(rf"\.entry {name}\([^{{]*\.maxntid {most}\b", text), f"{name} may be given too many registers"


@pytest.mark.parametrize("by", [*range(1, 40), 224, 255, 256, 257, 12345, 2**16 + 1, 2**30 - 1, 2**30])
def test_divisors_are_exact(by):
    """As the kernels multiply: in 32 and in 64 bits."""
    path = FOLDER / "divider.py"
    spec = importlib.util.spec_from_file_location("divider", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ((long_magic, _, magic, shift),) = module.divider(by).tolist()
    for bits, factor in ((31, magic), (63, long_magic)):
        assert factor < 2 ** (bits + 1)
        most = 2**bits - 1
        for n in {0, 1, by - 1, by, by + 1, most, most // by * by, most // by * by - 1, *range(7, most, most // 99)}:
            assert ((n << 1) * factor >> bits + 1) >> shift == n // by


def test_every_file_of_kernels_is_shipped_and_used():
    launched = "\n".join(path.read_text() for path in FOLDER.glob("*.py"))
    for module in MODULES:
        assert re.search(rf'"{module}"', launched), f"nothing launches {module}.cu"
        for name in compiled_module().kernel_names(module):
            stem = re.escape(name.removesuffix("byte").removesuffix("int"))
            assert re.search(rf'"{stem}["{{]', launched), f"nothing launches {name} of {module}.cu"
