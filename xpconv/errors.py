"""The one form of every message: the rule that was broken, what was given, what would work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SPATIAL = {1: ("W",), 2: ("H", "W"), 3: ("D", "H", "W")}


class BackendError(RuntimeError):
    """A backend that cannot be had; the message names the missing piece and how to get it."""


class EngineError(RuntimeError):
    """No engine of the chain in force can do what was asked; the message gives each one's reason."""


class FileError(ValueError):
    """A file that is truncated, foreign, or of another architecture."""


class GradientError(AssertionError):
    """A gradient that disagrees with central differences."""


def message(subject: str, rule: str, evidence: str = "", remedy: str = "") -> str:
    """``subject: rule`` / indented evidence / indented remedy; empty parts leave no line."""
    lines = [f"{subject}: {rule}", *(f"  {part}" for part in (evidence, remedy) if part)]
    return "\n".join(lines)


def counted(number: int, what: str) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{number} {what}{'s' * (number != 1)}"


def misnamed(missing: Iterable[str], unexpected: Iterable[str]) -> list[str]:
    """``w is missing`` and ``v is unexpected``, a line for each."""
    return [f"{name} is missing" for name in missing] + [f"{name} is unexpected" for name in unexpected]


def describe(name: str, x: Any, last: tuple[str, ...] = ()) -> str:
    """``x (N=8, H=32, W=32, C=6) float32``: name, shape (axes named for activations, or the ``last`` ones), dtype."""
    shape = getattr(x, "shape", None)
    if shape is None:
        return f"{name}={x!r}"
    if name in ("x", "dy", "y", "residual") and len(shape) - 2 in _SPATIAL:
        axes = ("N", *_SPATIAL[len(shape) - 2], "C")
        inside = ", ".join(f"{axis}={n}" for axis, n in zip(axes, shape, strict=True))
    else:
        names = [""] * (len(shape) - len(last)) + [f"{axis}=" for axis in last]
        inside = ", ".join(f"{axis}{n}" for axis, n in zip(names, shape, strict=True)) + (
            "," if len(shape) == 1 else ""
        )
    return f"{name} ({inside}) {dtype_name(x.dtype)}"


def describe_all(**arrays: Any) -> str:
    """Every array that was given, in one line."""
    return " · ".join(describe(name, x) for name, x in arrays.items() if x is not None)


def dtype_name(dtype: Any) -> str:
    """``float32`` for NumPy's, torch's and array-api-strict's spelling of it."""
    key = (type(dtype), dtype)  # the type first: comparing dtypes of two libraries warns
    name = _DTYPE_NAMES.get(key)
    if name is None:
        name = _DTYPE_NAMES[key] = getattr(dtype, "name", None) or str(dtype).rsplit(".", 1)[-1]
    return name


_DTYPE_NAMES: dict[tuple[type, Any], str] = {}
