"""How far an answer may be from the truth, and the one home of the constants.

An answer a in dtype D is right when, against float64 and elementwise,

    |a - a64| <= c · u · scale + half an ulp of a64 in D

where u is the unit roundoff of the precision sums are kept in (float32 for half precision), and `scale` is what the
op's case says: for a sum of K terms √K times the largest sum of absolute values in that sample and output channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.kinds import PARTS

NAMED = 2.0  # c for the named samples under precision("ieee")
PROPERTY = 4.0  # c for properties over generated arguments

_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
_SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}  # subnormal
_KEPT_IN = {"float16": "float32", "bfloat16": "float32"}


@dataclass(frozen=True)
class Truth:
    """One call in float64 on the reference: what went in and what came out."""

    op: Callable[..., Any]
    arrays: dict[str, Any]
    options: dict[str, Any]
    dtype: str  # what the arrays were rounded to
    y: Any  # the first result
    dy: Any
    grads: tuple[Any, ...]


@dataclass(frozen=True)
class Scales:
    """Scale of the permitted error of y and of each gradient (`None` where there is none)."""

    y: Any
    grads: tuple[Any, ...]


def permitted(scale: Any, true: Any, dtype: str, c: float = NAMED) -> Any:
    """The largest right error, elementwise."""
    real = PARTS.get(dtype, dtype)
    u = _ROUNDOFF[_KEPT_IN.get(real, real)]
    with np.errstate(invalid="ignore"):
        return c * u * scale + np.maximum(_ROUNDOFF[real] * np.abs(true), _SMALLEST[real] / 2)


def ulps(n: float) -> Callable[[Truth], Scales]:
    """Scales of an elementwise op: n units in the last place of the largest of the answer and what made it."""

    def scales(truth: Truth) -> Scales:
        grads = tuple(None if g is None else n * (np.abs(g) + np.abs(truth.dy).max(initial=0)) for g in truth.grads)
        return Scales(n * np.maximum(np.abs(truth.y), 1e-3), grads)

    return scales


def sums(terms: Callable[[Truth], tuple[int, ...]]) -> Callable[[Truth], Scales]:
    """Scales of an op that is a sum of products: the same op on absolute values, times the root of the terms.

    ``terms`` gives how many each sum has: of y, then of each gradient. The largest value of each sample and output
    channel stands for all its cells. An activation is left out, but what it keeps carries the error of y, so the
    gradients' scale grows by that.
    """

    def scales(truth: Truth) -> Scales:
        from xpconv.derivatives import vjp

        sizes = {name: np.abs(x) if x is not None else None for name, x in truth.arrays.items()}
        options = {name: value for name, value in truth.options.items() if name != "activation"}
        y, pullback = vjp(truth.op, **sizes, **options)
        count = terms(truth)
        dy = np.abs(truth.dy).astype(y.dtype)
        if truth.options.get("activation"):
            dy *= 1 + np.sqrt(count[0]) * _largest(y, keep_first=True)
        grads = pullback(dy)
        per_channel = [
            None if g is None else np.sqrt(k) * _largest(g, keep_first=i == 0)
            for i, (g, k) in enumerate(zip(grads, count[1:], strict=False))
        ]
        return Scales(np.sqrt(count[0]) * _largest(y, keep_first=True), tuple(per_channel))

    return scales


def _largest(x: Any, *, keep_first: bool) -> Any:
    """The largest per sample and channel, or per channel, in the shape of x for broadcasting."""
    axes = tuple(range(1 if keep_first else 0, x.ndim - 1))
    return np.max(x, axis=axes, keepdims=True, initial=0.0) if axes else x


def error_in_bounds(got: Any, true: Any, scale: Any, dtype: str, c: float = NAMED) -> float:
    """The largest error in units of the bound; inf for a misplaced nan or infinity, 0 for empty arrays."""
    if true.size == 0:
        return 0.0
    finite = np.isfinite(true)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(true[~finite], got[~finite], equal_nan=True):
        return float("inf")
    allowed = np.broadcast_to(permitted(scale, np.where(finite, true, 0), dtype, c), true.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(got - true)[finite]
        ratio = np.where(error == 0, 0.0, error / allowed[finite])
    return float(np.max(ratio, initial=0.0))
