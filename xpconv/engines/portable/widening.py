"""Running a primitive in a wider dtype than its arrays have, and rounding once at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpconv.backend import cast, dtype_named, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.errors import dtype_name

# Half precision is computed in float32.
HALVES = {"float16": "float32", "bfloat16": "float32"}
# The loops of the definition are computed in double precision throughout.
DOUBLE = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "complex64": "complex128"}


def widened(primitive: Primitive, wider: Mapping[str, str] = HALVES) -> Primitive:
    """The primitive, run in the wider dtype on arrays that have one and left alone on all others."""

    def run(*arrays: Any, **options: Any) -> Any:
        narrow = _narrow_dtype(arrays, wider)
        if narrow is None:
            return primitive.run(*arrays, **options)
        answer = primitive.run(
            *_widen(arrays, wider), **{name: _widen(value, wider) for name, value in options.items()}
        )
        if primitive.backward is None:
            return _narrow(answer, narrow, wider)
        y, residuals = answer
        return _narrow(y, narrow, wider), residuals

    def backward(residuals: Any, dy: Any, needs: Needs) -> Any:
        narrow = _narrow_dtype((dy,), wider)
        if narrow is None:
            return primitive.backward(residuals, dy, needs)  # type: ignore[misc]
        return _narrow(primitive.backward(residuals, _widen(dy, wider), needs), narrow, wider)  # type: ignore[misc]

    return primitive._replace(run=run, backward=backward if primitive.backward is not None else None)


def _narrow_dtype(arrays: tuple[Any, ...], wider: Mapping[str, str]) -> Any:
    """The dtype to come back to, or `None`; the arrays of one call share their floating dtype."""
    for x in arrays:
        if x is not None and dtype_name(x.dtype) in wider:
            return x.dtype
    return None


def _widen(value: Any, wider: Mapping[str, str]) -> Any:
    if hasattr(value, "dtype"):
        wide = wider.get(dtype_name(value.dtype))
        return value if wide is None else cast(value, dtype_named(namespace(value), wide))
    if isinstance(value, tuple):
        parts = [_widen(part, wider) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _narrow(value: Any, narrow: Any, wider: Mapping[str, str]) -> Any:
    if hasattr(value, "dtype"):
        return cast(value, narrow) if dtype_name(value.dtype) == wider[dtype_name(narrow)] else value
    if isinstance(value, tuple):
        return tuple(_narrow(part, narrow, wider) for part in value)
    return value
