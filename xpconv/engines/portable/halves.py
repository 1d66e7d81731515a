"""float16 and bfloat16: computed in float32 and rounded once, at the end of each primitive."""

from __future__ import annotations

from typing import Any

from xpconv.backend import cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.errors import dtype_name

_HALVES = ("float16", "bfloat16")


def widened(primitive: Primitive) -> Primitive:
    """The primitive, run in float32 on arrays of half precision and left alone on all others."""

    def run(*arrays: Any, **options: Any) -> Any:
        half = _half(arrays)
        if half is None:
            return primitive.run(*arrays, **options)
        answer = primitive.run(*_widen(arrays), **{name: _widen(value) for name, value in options.items()})
        if primitive.backward is None:
            return _narrow(answer, half)
        y, residuals = answer
        return _narrow(y, half), residuals

    def backward(residuals: Any, dy: Any, needs: Needs) -> Any:
        half = _half((dy,))
        if half is None:
            return primitive.backward(residuals, dy, needs)  # type: ignore[misc]
        return _narrow(primitive.backward(residuals, _widen(dy), needs), half)  # type: ignore[misc]

    return primitive._replace(run=run, backward=backward if primitive.backward is not None else None)


def _half(arrays: tuple[Any, ...]) -> Any:
    """The half-precision dtype among the arrays, or `None`; arrays of one call share their floating dtype."""
    for x in arrays:
        if x is not None and dtype_name(x.dtype) in _HALVES:
            return x.dtype
    return None


def _widen(value: Any) -> Any:
    if hasattr(value, "dtype"):
        return cast(value, namespace(value).float32) if dtype_name(value.dtype) in _HALVES else value
    if isinstance(value, tuple):
        widened_parts = [_widen(part) for part in value]
        return type(value)(*widened_parts) if hasattr(value, "_fields") else type(value)(widened_parts)
    return value


def _narrow(value: Any, half: Any) -> Any:
    if hasattr(value, "dtype"):
        return cast(value, half) if value.dtype == namespace(value).float32 else value
    if isinstance(value, tuple):
        return tuple(_narrow(part, half) for part in value)
    return value
