"""The one list of targets. A machine with a GPU runs more rows; without one they are reported as skipped."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

import xpconv
from xpconv.dispatch import CHAINS, engine_primitives
from xpconv.parity import CASES, Target, serves


@dataclass(frozen=True)
class TestTarget(Target):
    """A target, and whether its input arrays may be written to."""

    __test__ = False
    readonly: bool = False

    @property
    def name(self) -> str:
        return super().name + (" read-only" if self.readonly else "")


TARGETS = (
    TestTarget("numpy", "reference"),
    TestTarget("numpy", "portable"),
    TestTarget("numpy", "portable", readonly=True),
    TestTarget("numpy", "numba"),
    TestTarget("numpy", "numba", readonly=True),
    TestTarget("array_api_strict", "portable"),
    TestTarget("array_api_strict:device1", "portable"),
    TestTarget("torch", "portable"),
    TestTarget("array_api_strict:device1", "reference"),
    *(TestTarget("cupy", engine) for engine in CHAINS["cupy"]),
)

PACKAGES = {"array_api_strict": "array_api_strict", "torch": "torch"}


@functools.cache
def missing(backend: str) -> str:
    """Why the backend cannot be had here, or nothing."""
    try:
        with xpconv.use_backend(backend):
            return ""
    except xpconv.BackendError as error:
        return str(error).splitlines()[0]


def absent(target: Target) -> str:
    """Why the target's backend or engine cannot be had here, or nothing."""
    table = engine_primitives(target.engine)
    return missing(target.backend) or (f"{target.engine} {table}" if isinstance(table, str) else "")


def dtypes(target: Target) -> tuple[str, ...]:
    """The floating dtypes that the target's library has, or that its engine takes."""
    if target.engine == "numba":
        return ("float32", "float64")
    return ("float32",) if target.backend.startswith("array_api_strict") else ("float32", "float16")


def calls(targets=TARGETS, keep=lambda case, sample: True) -> list:
    """Every call on every target as pytest parameters; those that an engine declines are not among them."""
    return [
        pytest.param(target, case, sample, id=f"{case.name}-{sample.name}-{target.name}")
        for case in CASES
        for sample in case.samples
        if keep(case, sample)
        for target in targets
        if absent(target) or serves(case, sample, target)
    ]


def require(target: Target) -> None:
    """Skip, by name and reason, what cannot run here."""
    if absent(target):
        pytest.skip(f"{target.name}: {absent(target)}")
