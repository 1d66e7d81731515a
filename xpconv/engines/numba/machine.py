"""What this CPU can do, and the register tiles that follow from it: one description for every CPU.

A tile holds P pixels × V vectors of output channels in registers. Each step of its inner loop loads V vectors of
weights and P numbers that are broadcast, for P·V multiply-adds: wide tiles load little, but P·V accumulators, V weights
and one broadcast must fit the registers, or the compiler spills them.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import NamedTuple

import llvmlite.binding as llvm

from xpconv.errors import EngineError, message

VARIABLE = "XPCONV_CPU"
# x86-64's levels, as its ABI names them, with a feature that tells whether a CPU has reached each.
_LEVELS = {"x86-64": "sse2", "x86-64-v3": "avx2", "x86-64-v4": "avx512f"}


class Tile(NamedTuple):
    """Pixels × vectors that a register tile holds, and how many numbers are in a vector."""

    pixels: int
    vectors: int
    lanes: int


@dataclass(frozen=True)
class Machine:
    """The CPU that kernels are compiled for, in LLVM's names."""

    triple: str
    name: str
    features: str
    vector_bytes: int
    registers: int

    def lanes(self, dtype: str) -> int:
        """How many numbers of the dtype a vector register holds."""
        return self.vector_bytes // (8 if dtype == "float64" else 4)

    @property
    def halves(self) -> bool:
        """Whether half a vector takes half the time: Zen 4 does 512 bits in two steps."""
        return self.name == "znver4" and self.vector_bytes == 64

    @property
    def widest(self) -> int:
        """The most vectors across that a tile has."""
        return 4 if self.registers >= 32 else 2

    @property
    def accumulators(self) -> int:
        """The vectors of sums of a tile: measured, 24 of 32 registers and 12 of 16 are fastest."""
        return 24 if self.registers >= 32 else 12

    def tile(self, dtype: str, vectors: int) -> Tile:
        """The tile of that many vectors across; more pixels than half as many have no room for their addresses."""
        return Tile(min(self.accumulators // 2, self.accumulators // vectors), vectors, self.lanes(dtype))


@functools.cache
def machine() -> Machine:
    """The CPU of this machine, or the lesser one that the environment asks for."""
    triple = llvm.get_process_triple()
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot ask every CPU: the name alone tells it most
        features = llvm.FeatureMap()
    asked = os.environ.get(VARIABLE, "")
    if not asked:
        known = {name: present for name, present in features.items() if present}
        return _described(triple, llvm.get_host_cpu_name(), features.flatten(), set(known))
    if asked not in _LEVELS or not features.get(_LEVELS[asked], False):
        possible = ", ".join(level for level, feature in _LEVELS.items() if features.get(feature, False))
        rule = f"kernels cannot be compiled for {asked!r}: this CPU does not run them, or there is no such level."
        remedy = f"possible here: {possible}" if possible else "leave it unset."
        raise EngineError(message("numba", rule, f"given: {VARIABLE}={asked}", remedy))
    levels = list(_LEVELS)
    return _described(triple, asked, "", {_LEVELS[level] for level in levels[: levels.index(asked) + 1]})


def _described(triple: str, name: str, features: str, known: set[str]) -> Machine:
    arm = triple.startswith(("aarch64", "arm64"))
    wide = "avx512f" in known
    vector = 64 if wide else 32 if "avx2" in known else 16
    return Machine(triple, name, features, vector, 32 if wide or arm else 16)
