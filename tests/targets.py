"""The one list of targets. A machine with a GPU runs more rows; without one they are reported as skipped."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from xpconv.dispatch import CHAINS
from xpconv.parity import CASES, Target, serves
from xpconv.parity import targets as home
from xpconv.parity.targets import absent, missing

__all__ = ["TARGETS", "TestTarget", "absent", "calls", "dtypes", "missing", "require"]


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


def dtypes(target: Target) -> tuple[str, ...]:
    """What the target's library has; but loops over array-api-strict's arrays take seconds for a sample and dtype."""
    slow = target.engine == "reference" and target.backend != "numpy"
    return ("float32",) if slow else home.dtypes(target)


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
