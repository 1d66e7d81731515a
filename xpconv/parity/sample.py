"""Named calls of an op, and the arrays they are made with."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.parity.bounds import Scales, Truth

Rng = np.random.Generator
Spec = tuple[int, ...] | Callable[[Rng], np.ndarray] | None  # a shape of normal numbers, a drawing, or absent


def complex_normal(*shape: int) -> Spec:
    """Normal numbers in both parts."""
    return lambda rng: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


CONSTANTS = {"constant": 0.7, "constant 0.1": 0.1}  # of both, rounding errors of long sums have one sign
FILLS = ("random", *CONSTANTS, "positive")
_NAN_SHARE = 0.03
NANS = "nan"  # random, with a nan here and there: which result it shows in is exact


@dataclass(frozen=True)
class Sample:
    """One call: the op's array parameters by name, and its options."""

    name: str
    arrays: dict[str, Spec]
    options: dict[str, Any] = field(default_factory=dict)
    fills: bool = True  # whether its normal arrays may also be constant or all positive

    def draw(self, fill: str = "random", dtype: str = "float64") -> dict[str, Any]:
        """The arrays, floating ones rounded to ``dtype``; the same every time."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        drawn = {name: self._one(spec, rng, fill) for name, spec in self.arrays.items()}
        return {name: rounded(x, dtype) for name, x in drawn.items()}

    def _one(self, spec: Spec, rng: Rng, fill: str) -> np.ndarray | None:
        if spec is None:
            return None
        if callable(spec):
            return spec(rng)
        x = rng.standard_normal(spec)
        if fill in CONSTANTS:
            return np.full(spec, CONSTANTS[fill])
        if fill == NANS:
            x[rng.random(spec) < _NAN_SHARE] = np.nan
        return np.abs(x) if fill == "positive" else x


def rounded(x: Any, dtype: str) -> Any:
    """Floating-point values in ``dtype`` (complex ones in the complex dtype of that width); others as they are."""
    if x is None or x.dtype.kind not in "fc":
        return x
    if x.dtype.kind == "c":
        return x.astype("complex64" if dtype == "float32" else "complex128")
    return _to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


def _to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16, ties to even, in float32, whose upper half they are; NumPy has no bfloat16."""
    bits = x.astype("float32").view("uint32")
    nearest = bits + 0x7FFF + (bits >> 16 & 1)
    return np.where(np.isnan(x), np.float32(np.nan), (nearest & 0xFFFF0000).astype("uint32").view("float32"))


@dataclass(frozen=True)
class Case:
    """An op, its samples, and the scale of its rounding errors."""

    op: Callable[..., Any]
    samples: tuple[Sample, ...]
    scales: Callable[[Truth], Scales]  # per output and gradient: the permitted error in units of c * u
    linear: tuple[str, ...] = ()  # arrays in which y is linear: their gradients hold the adjoint identity
    exact: bool = False  # a selection: the answer is equal, not near
    kinked: bool = False  # not differentiable everywhere: central differences skip the kinks

    @property
    def name(self) -> str:
        return self.op.__name__
