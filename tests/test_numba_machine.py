"""Every level of CPU answers within the bound and uses no register it lacks; and all works without numba, too."""

from __future__ import annotations

import re

import pytest
from apart import run

import xpconv
from xpconv import ops

pytest.importorskip("numba")

import llvmlite.binding as llvm

from xpconv.engines.numba import machine as machines
from xpconv.engines.numba import tiling

LEVELS = machines._LEVELS
X86 = llvm.get_process_triple().startswith("x86_64")
x86 = pytest.mark.skipif(not X86, reason="levels are those of x86-64")


def reaches(level: str) -> bool:
    return X86 and llvm.get_host_cpu_features().get(LEVELS[level], False)


ANSWERS = """
from targets import TestTarget
from xpconv.parity import CASES, measure, serves

target, calls = TestTarget("numpy", "numba"), 0
for case in CASES:
    sample = case.samples[0]  # a level compiles all of its kernels anew, which takes longer than running them
    for dtype in ("float32", "float64") if case.name in ("conv", "max_pool", "batch_norm") else ("float32",):
        if serves(case, sample, target, dtype):
            calls += 1
            for name, error in measure(case, sample, target, dtype).items():
                assert error <= 1, f"{case.name}, {sample.name}, {name} in {dtype}: {error:.3g} times the bound"
from xpconv.engines.numba.machine import machine
print(machine().name, machine().vector_bytes, calls)
"""


@x86
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("level", "vector"), [("x86-64", 16), ("x86-64-v3", 32), ("x86-64-v4", 64)])
def test_answers_lie_within_the_bound_on_every_level(level, vector):
    if not reaches(level):
        pytest.skip(f"this CPU does not reach {level}")
    name, width, calls = run(ANSWERS, timeout=580, XPCONV_CPU=level, PYTHONWARNINGS="ignore").stdout.split()
    assert (name, int(width)) == (level, vector)
    assert int(calls) > 15


REGISTERS = """
import numpy as np
import xpconv
from xpconv import ops
from xpconv.engines.numba import compiled

x, w = np.ones((1, 6, 6, 40), "float32"), np.ones((3, 3, 40, 40), "float32")
with xpconv.use_engine("numba"):
    for op, args in ((ops.relu, (x,)), (ops.conv, (x, w)), (ops.max_pool, (x, 2))):
        y, pullback = xpconv.vjp(op, *args)
        pullback(y)
for key in list(compiled._loaded):
    print(compiled.assembly(*key))
"""


@x86
@pytest.mark.parametrize(("level", "absent"), [("x86-64", r"%[yz]mm|\bv[a-z]+ps\b"), ("x86-64-v3", "%zmm")])
def test_code_for_a_level_uses_none_of_a_higher_ones_registers(level, absent):
    if not reaches(level):
        pytest.skip(f"this CPU does not reach {level}")
    text = run(REGISTERS, XPCONV_CPU=level).stdout
    assert re.search(r"%[xy]mm", text)
    assert not re.search(absent, text)


@pytest.mark.parametrize("asked", ["pentium", "x86-64-v9", *([level for level in LEVELS if not reaches(level)])])
def test_a_level_that_cannot_be_had_is_refused(monkeypatch, asked):
    monkeypatch.setenv(machines.VARIABLE, asked)
    machines.machine.cache_clear()
    try:
        with pytest.raises(xpconv.EngineError, match=f"kernels cannot be compiled for '{asked}'") as caught:
            machines.machine()
        assert not X86 or "possible here: x86-64" in str(caught.value)
    finally:
        machines.machine.cache_clear()


def test_a_cpu_that_cannot_be_asked_is_taken_by_its_name(monkeypatch):
    def unknown():
        raise RuntimeError("features unavailable")

    monkeypatch.delenv(machines.VARIABLE, raising=False)
    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    plain = machines.machine.__wrapped__()
    assert (plain.name, plain.features, plain.vector_bytes) == (llvm.get_host_cpu_name(), "", 16)


def test_tiles_fit_the_registers():
    for vector_bytes, registers in ((16, 16), (32, 16), (64, 32), (16, 32)):
        cpu = machines.Machine("", "", "", vector_bytes, registers)
        for vectors in range(1, cpu.widest + 1):
            tile = cpu.tile("float32", vectors)
            assert tile.lanes * 4 == vector_bytes
            assert tile.pixels * vectors + vectors + 1 <= registers


# -- without numba -----------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
for name in {!r}: sys.modules[name] = None
import numpy as np
import xpconv
from xpconv import cli, ops
x = np.linspace(-1, 1, 75, dtype="float32").reshape(1, 5, 5, 3)
y, pullback = xpconv.vjp(ops.conv, x, np.ones((3, 3, 3, 2), "float32"))
pullback(y)
print(xpconv.explain(ops.relu, x)["numba"])
try:
    with xpconv.use_engine("numba"): ops.relu(x)
except xpconv.EngineError as error:
    print(error)
raise SystemExit(cli.main(["info"]))
"""


@pytest.mark.parametrize("absent", [("numba", "llvmlite"), ("numba",), ("llvmlite",)], ids=str)
def test_without_numba_everything_works_and_info_tells_what_is_missed(absent):
    first, *rest = run(WITHOUT.format(absent)).stdout.splitlines()
    assert first == "cannot be had here: it needs numba: pip install 'xpconv[cpu]'"
    text = "\n".join(rest)
    assert "numba cannot be had here: it needs numba: pip install 'xpconv[cpu]'" in text
    assert re.search(r"^  numba +cannot be had here: it needs numba: pip install 'xpconv\[cpu\]'$", text, re.MULTILINE)


def test_a_numba_that_does_not_fit_numpy_is_left_alone(tmp_path):
    """As numba itself says at its import; nothing is compiled then, and `portable` serves."""
    code = """
import builtins, sys
load = builtins.__import__
def refuse(name, *args, **kwargs):
    if name == "numba" or name.startswith("numba."):
        raise ImportError("Numba needs NumPy 1.0 or less.")
    return load(name, *args, **kwargs)
builtins.__import__ = refuse
import numpy as np
import xpconv
from xpconv import ops
assert ops.relu(np.ones(3)).all()
print(xpconv.explain(ops.relu, np.ones(3))["numba"])
"""
    answer = run(code, XPCONV_CACHE_DIR=tmp_path).stdout.strip()
    assert answer == "cannot be had here: Numba needs NumPy 1.0 or less."


def test_info_tells_of_the_cpu_its_kernels_and_the_threads(tmp_path):
    code = "from xpconv import cli; cli.main(['info'])"
    text = run(code, XPCONV_CACHE_DIR=tmp_path, XPCONV_NUM_THREADS=3).stdout
    pattern = (
        rf"^  numba +ready, \d+ primitives · CPU: \S+, \d+-bit vectors · kernels kept in: {re.escape(str(tmp_path))}$"
    )
    assert re.search(pattern, text, re.MULTILINE)
    assert re.search(r"^  num_threads +3 +environment +XPCONV_NUM_THREADS$", text, re.MULTILINE)


def test_explain_says_what_is_left_to_portable():
    import numpy as np

    answers = xpconv.explain(ops.relu, np.ones(3, "float16"))
    assert "float16" in answers["numba"]
    assert answers["portable"].startswith("chosen: relu")


def test_zen_4_gets_half_vectors_where_whole_ones_would_be_half_empty(monkeypatch):
    zen4 = machines._described("x86_64-unknown-linux-gnu", "znver4", "", {"avx2", "avx512f"})
    monkeypatch.setattr(tiling, "machine", lambda: zen4)
    lanes = [tiling.channels.__wrapped__("float32", count).lanes for count in (6, 12, 16, 24, 40, 44, 1000)]
    assert lanes == [8, 16, 16, 8, 8, 16, 16]
