"""What layers put together from parts of arrays, or take apart."""

from __future__ import annotations

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba.arrays import empty, place
from xpconv.engines.numba.strided import copies, copy


def _write(y: np.ndarray, x: np.ndarray) -> None:
    """y = x, where y lies."""
    copy(place(x), place(y), x.itemsize, x.shape, x.strides, y.strides)


def _unwritable(y: np.ndarray, x: np.ndarray) -> str | None:
    if x.dtype != y.dtype or x.shape != y.shape or not (copies(x) and copies(y)):
        return "writes numbers of 4 or 8 bytes with channels side by side"
    return None


def _concat(*parts: np.ndarray) -> np.ndarray:
    """The channels of all parts: (..., C1), (..., C2), ... -> (..., C1 + C2 + ...)."""
    y, first = empty((*parts[0].shape[:-1], sum(part.shape[-1] for part in parts)), parts[0].dtype), 0
    for part in parts:
        _write(y[..., first : first + part.shape[-1]], part)
        first += part.shape[-1]
    return y


def _unjoinable(*parts: np.ndarray) -> str | None:
    return next((reason for part in parts if (reason := _unwritable(part, part))), None) or (
        None if len({part.dtype for part in parts}) == 1 else "joins parts of one dtype"
    )


PRIMITIVES = {
    "write": Primitive(_write, declines=_unwritable),
    "concat": Primitive(_concat, declines=_unjoinable),
}
