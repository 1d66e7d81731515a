"""What flows through a running graph: arrays, which of them have their channels last, and constants.

ONNX orders axes ``(N, C, *spatial)``; the ops here want ``(N, *spatial, C)``. An array in the second order is wrapped
in `Last` until an operator needs the first: between layers that work either way nothing is transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from xpconv.backend import Array, Backend, namespace
from xpconv.packing import Place


@dataclass(frozen=True, slots=True)
class Last:
    """An array of rank 3 or more whose channels, ONNX's second axis, are its last."""

    array: Array


Value = Any  # an array in ONNX's order of axes, or one that is `Last`


class Axes(NamedTuple):
    """Where ONNX's axes lie in the array that an operator is given."""

    rank: int
    last: bool

    def of(self, axis: int) -> int:
        """The place of one of ONNX's axes, which may count from the end."""
        axis %= max(self.rank, 1)
        if not self.last or axis == 0:
            return axis
        return self.rank - 1 if axis == 1 else axis - 1


def channels_last(x: Array) -> Array:
    """``(N, C, *spatial) -> (N, *spatial, C)`` of any rank: what has no spatial axes stays as it is."""
    return x if x.ndim < 3 else namespace(x).permute_dims(x, (0, *range(2, x.ndim), 1))


def channels_first(x: Array) -> Array:
    """``(N, *spatial, C) -> (N, C, *spatial)`` of any rank."""
    return x if x.ndim < 3 else namespace(x).permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def plain(value: Value) -> Array:
    """The array in ONNX's order of axes."""
    return channels_first(value.array) if isinstance(value, Last) else value


def marked(x: Array) -> Value:
    """An array with its channels last, wrapped if that is not ONNX's order anyway."""
    return x if x.ndim < 3 else Last(x)


def is_host(x: Array) -> bool:
    """Whether an array is NumPy's: shapes and indices are, wherever the rest of the graph runs."""
    return isinstance(x, np.ndarray)


@dataclass(slots=True)
class Placed:
    """A constant on one backend, and what engines keep beside it."""

    value: Array
    packed: Place = field(default_factory=Place)


@dataclass(slots=True)
class Constant:
    """A tensor that is known at load, and its copies on the backends that it was used on."""

    host: np.ndarray
    _copies: dict[tuple[str, str], Placed] = field(default_factory=dict)

    def on(self, place: Backend) -> Placed:
        """The constant there, made at the first use."""
        key = (place.library, str(place.device))  # by its name: CuPy's devices have no hash
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = Placed(place.asarray(self.host) if place.library != "numpy" else self.host)
        return copy
