"""The form that updates are computed in: float32 for half precision, pairs of real numbers for complex ones."""

from __future__ import annotations

from typing import Any

from xpconv.backend import HALVES, Array, cast, dtype_named, library, namespace
from xpconv.errors import dtype_name
from xpconv.kinds import PARTS, dtype_kind


def working(x: Array) -> Array:
    """The array in that form: float32 for halves, real pairs (..., 2) for complex arrays."""
    xp = namespace(x)
    if dtype_name(x.dtype) in HALVES:
        return cast(x, xp.float32)
    return xp.stack([xp.real(x), xp.imag(x)], axis=-1) if dtype_kind(x.dtype) == "c" else x


def stored(x: Array, like: Array) -> Array:
    """Back from the form of `working` to the parameter's own."""
    return cast(x[..., 0] + 1j * x[..., 1] if dtype_kind(like.dtype) == "c" else x, like.dtype)


def form(value: Array) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the form of `working`."""
    xp, name = namespace(value), dtype_name(value.dtype)
    if dtype_kind(value.dtype) == "c":
        return (*value.shape, 2), dtype_named(xp, PARTS.get(name, "float64"))
    return tuple(value.shape), dtype_named(xp, "float32") if name in HALVES else value.dtype


def fits(slot: Array, shape: tuple[int, ...], dtype: Any, value: Array) -> bool:
    """Whether what is kept has a shape and dtype, and lives where the parameter does."""
    there = library(slot) == library(value) and slot.device == value.device
    return there and slot.dtype == dtype and tuple(slot.shape) == shape
