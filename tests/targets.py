"""The one list of targets. A machine with a GPU runs more rows; without one they are reported as skipped."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

import xpconv
from xpconv.dispatch import CHAINS
from xpconv.parity import Target


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


def dtypes(target: Target) -> tuple[str, ...]:
    """The floating dtypes that the target's library has."""
    return ("float32",) if target.backend.startswith("array_api_strict") else ("float32", "float16")


def parameters() -> list:
    """The targets as pytest parameters, each with its name."""
    return [pytest.param(target, id=target.name) for target in TARGETS]


def require(target: Target) -> None:
    """Skip, by name and reason, what cannot run here."""
    reason = missing(target.backend)
    if reason:
        pytest.skip(f"{target.name}: {reason}")
