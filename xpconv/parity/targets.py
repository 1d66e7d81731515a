"""Where a case can run: every backend, the engines that may serve its arrays, and the dtypes that its library has."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from xpconv import backend
from xpconv.dispatch import ANY_LIBRARY, CHAINS, engine_primitives
from xpconv.errors import BackendError
from xpconv.settings import TOTAL

BACKENDS = ("numpy", "array_api_strict", "torch", "cupy")
FLOATING = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Target:
    """Where a case runs: a backend and an engine."""

    backend: str
    engine: str

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.engine}"

    @property
    def chain(self) -> tuple[str, ...]:
        """The engine alone where it is total; else `portable` serves what it lacks."""
        return (self.engine,) if self.engine in TOTAL else (self.engine, "portable")


def targets(backends: Sequence[str] = BACKENDS, engines: Sequence[str] | None = None) -> list[Target]:
    """The targets of some backends: with every engine that may serve their arrays, or with those of ``engines``.

    NumPy's also with the reference, whose loops would be as many launches on a device.
    """
    found = []
    for name in backends:
        library = name.partition(":")[0]
        able = (*(("reference",) if library == "numpy" else ()), *CHAINS.get(library, ANY_LIBRARY))
        wanted = able if engines is None else [e for e in engines if e in able or e in TOTAL]
        found += [Target(name, engine) for engine in wanted]
    return found


@functools.cache
def missing(name: str) -> str:
    """Why the backend cannot be had here, and what to do; or nothing."""
    try:
        with backend.use_backend(name):
            return ""
    except BackendError as error:
        return " ".join(line.strip() for line in str(error).splitlines()).removeprefix("use_backend: ")


def absent(target: Target) -> str:
    """Why the target's backend or engine cannot be had here, or nothing."""
    table = engine_primitives(target.engine)
    return missing(target.backend) or (f"{target.engine} {table}" if isinstance(table, str) else "")


def dtypes(target: Target) -> tuple[str, ...]:
    """The floating dtypes that the target's library has; its engine may decline some of them."""
    return tuple(name for name in FLOATING if _has(backend.get(target.backend).xp, name))


def _has(library: ModuleType, dtype: str) -> bool:
    try:
        backend.dtype_named(library, dtype)
    except TypeError:
        return False
    return True
