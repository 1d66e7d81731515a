"""What every op asks of its arrays, judged once, at the public edge."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpconv.arrays import check_array
from xpconv.backend import Array, library
from xpconv.errors import describe, describe_all, dtype_name, message
from xpconv.kinds import dtype_kind

_NEEDED = frozenset({"w", "other", "slope", "target"})  # beside the first array of a call, which always is
_KINDS = {"f": "real floating-point", "c": "complex", "i": "integer", "b": "bool"}


def arrays(op: str, kinds: str = "f", **given: Any) -> None:
    """Check that the arrays can be computed with, and that they are of one library, device and dtype.

    ``kinds`` are those the op is defined for: ``f`` real, ``c`` complex, ``i`` integer, ``b`` bool.
    """
    first: Array = None
    for name, x in given.items():
        if x is None and first is not None and name not in _NEEDED:
            continue
        check_array(op, name, x)
        if first is None:
            first = x
            if dtype_kind(x.dtype) not in kinds:
                raise _wrong_kind(op, kinds, name, x)
        elif not together(x, first) or x.dtype != first.dtype:  # dtypes of two libraries do not compare
            raise _unlike(op, given)


def together(x: Array, other: Array) -> bool:
    """Whether two arrays are of one library and on one device."""
    if type(x) is type(other) is np.ndarray:
        return True
    return library(x) == library(other) and bool(x.device == other.device)


def _wrong_kind(op: str, kinds: str, name: str, x: Array) -> TypeError:
    wanted = " or ".join(_KINDS[kind] for kind in kinds)
    how = f"{name}.to(torch.float32)" if library(x) == "torch" else f"{name}.astype('float32')"
    bright = ", and scale it as what was trained on, such as by / 255" if dtype_name(x.dtype) == "uint8" else ""
    cast = f"cast it: {how}{bright}." if dtype_kind(x.dtype) in "ib" and "f" in kinds else ""
    return TypeError(message(op, f"needs {wanted} arrays, not {dtype_name(x.dtype)}.", describe(name, x), cast))


def _unlike(op: str, given: dict[str, Array | None]) -> TypeError:
    present = {name: x for name, x in given.items() if x is not None}
    places = " · ".join(f"{name} of {library(x)} on {x.device}" for name, x in present.items())
    libraries = {library(x) for x in present.values()}
    if len(libraries) > 1:
        how = "make them alike: xpconv.asarray(x, dtype) gives an array of the backend in force (xpconv.use_backend)."
    else:
        cast = "x.to(...)" if libraries == {"torch"} else "x.astype(...)"
        how = f"cast with {cast}, or make them alike with xpconv.asarray(x, dtype)."
    return TypeError(
        message(
            op,
            "the arrays of one call must share library, device and dtype; nothing is cast or moved silently.",
            f"{describe_all(**present)} ({places})",
            how,
        )
    )


_AXES_TO_ADD = {
    1: "one signal (W,) of one channel becomes a batch with x[None, :, None].",
    2: "signals (N, W) of one channel need x[..., None], one signal (W, C) x[None], one image (H, W) both.",
    3: "one image (H, W, C) becomes a batch with x[None]; one channel (N, H, W) with x[..., None].",
}


def activations(op: str, x: Array, *, least: int = 3) -> None:
    """Check for the canonical layout ``(N, *spatial, C)`` with 1 to 3 spatial axes."""
    if not least <= x.ndim <= 5:
        raise ValueError(
            message(
                op,
                f"x must have shape (N, *spatial, C) with {least - 2} to 3 spatial axes, not {x.ndim} axes.",
                describe("x", x),
                _AXES_TO_ADD.get(x.ndim, ""),
            )
        )


def channel_vector(op: str, name: str, v: Array | None, channels: int) -> None:
    """Check for ``(C,)`` or any ``(1, ..., 1, C)``."""
    if v is None or (v.ndim and v.shape[-1] == channels and all(n == 1 for n in v.shape[:-1])):
        return
    rule = f"{name} must have shape ({channels},) or (1, ..., 1, {channels})."
    raise ValueError(message(op, rule, describe(name, v)))


def one_of(op: str, name: str, value: Any, known: tuple[Any, ...], theirs: Mapping[str, str] | None = None) -> None:
    """Check an option against the values it may take; ``theirs`` is what PyTorch's names for the same are here."""
    if value not in known:
        ours = theirs.get(value) if theirs is not None and isinstance(value, str) else None
        same = f"PyTorch's {value!r} is {ours} here." if ours else ""
        remedy = f"known: {', '.join(map(repr, known))}."
        raise ValueError(message(op, f"{name} {value!r} is not known.", same, remedy))


def number(op: str, name: str, value: Any, *, least: float = -math.inf, most: float = math.inf) -> float:
    """A real option as a Python float, which leaves the arrays' dtype alone; checked to lie in its range."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(message(op, f"{name} must be a real number.", f"given: {name}={value!r}"))
    if not least <= float(value) <= most:
        bounds = [f"at least {least:g}"] * (least > -math.inf) + [f"at most {most:g}"] * (most < math.inf)
        rule = f"{name} must be {' and '.join(bounds) or 'a number'}."
        raise ValueError(message(op, rule, f"given: {name}={value!r}"))
    return float(value)
