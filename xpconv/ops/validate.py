"""What every op asks of its arrays, judged once, at the public edge."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from xpconv.backend import Array, library, type_facts
from xpconv.dispatch import dtype_kind
from xpconv.errors import describe, describe_all, dtype_name, message

_KINDS = {"f": "real floating-point", "c": "complex", "i": "integer", "b": "bool"}


def arrays(op: str, kinds: str = "f", **given: Array | None) -> None:
    """Check that the arrays can be computed with, and that they are of one library, device and dtype.

    ``kinds`` are those the op is defined for: ``f`` real, ``c`` complex, ``i`` integer, ``b`` bool.
    """
    first: Array = None
    for name, x in given.items():
        if x is None:
            continue
        one_array(op, name, x)
        if first is None:
            first = x
            if dtype_kind(x.dtype) not in kinds:
                raise _wrong_kind(op, kinds, name, x)
        elif library(x) != library(first) or x.dtype != first.dtype or x.device != first.device:
            raise _unlike(op, given)


def one_array(op: str, name: str, x: Any) -> None:
    """Check that one argument is an array the engines can work on, of whatever dtype."""
    lib = _accepted(type(x))  # type: ignore[arg-type]
    if lib is None:
        raise _not_an_array(op, name, x)
    if lib == "torch" and x.requires_grad:
        raise TypeError(
            message(
                op,
                f"{name} is a torch tensor with requires_grad, and PyTorch cannot see the gradients made here.",
                describe(name, x),
                "use exchange.torch.function(op) inside a torch model, or pass tensor.detach() with xpconv.vjp.",
            )
        )
    if lib == "numpy" and dtype_name(x.dtype) == "bfloat16":
        raise TypeError(
            message(
                op,
                f"{name} is a NumPy bfloat16 array, and NumPy itself has no bfloat16 arithmetic.",
                describe(name, x),
                "cast it: x.astype('float32'); bfloat16 works on CuPy and torch arrays.",
            )
        )


@functools.cache
def _accepted(kind: type) -> str | None:
    """The library of arrays of that type; `None` for what is not a plain array."""
    if issubclass(kind, np.ndarray) and kind not in (np.ndarray, np.memmap):
        return None
    try:
        return type_facts(kind)[0]
    except TypeError:
        return None


def _not_an_array(op: str, name: str, x: Any) -> TypeError:
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    if isinstance(x, np.ma.MaskedArray):
        remedy = "the mask would be lost: fill it first, as in x.filled(0)."
    elif isinstance(x, np.ndarray):
        remedy = "what the subclass means would be lost: pass np.asarray(x)."
    else:
        remedy = "make an array with xpconv.asarray(...)."
    return TypeError(message(op, f"{name} is a {kind}, not a plain array of a known library.", "", remedy))


def _wrong_kind(op: str, kinds: str, name: str, x: Array) -> TypeError:
    wanted = " or ".join(_KINDS[kind] for kind in kinds)
    cast = f"cast it: {name}.astype('float32')." if dtype_kind(x.dtype) in "ib" and "f" in kinds else ""
    return TypeError(message(op, f"needs {wanted} arrays, not {dtype_name(x.dtype)}.", describe(name, x), cast))


def _unlike(op: str, given: dict[str, Array | None]) -> TypeError:
    present = {name: x for name, x in given.items() if x is not None}
    places = " · ".join(f"{name} of {library(x)} on {x.device}" for name, x in present.items())
    return TypeError(
        message(
            op,
            "the arrays of one call must share library, device and dtype; nothing is cast or moved silently.",
            f"{describe_all(**present)} ({places})",
            "cast with x.astype(...), or make them alike with xpconv.asarray(x, dtype).",
        )
    )


def activations(op: str, x: Array, *, least: int = 3) -> None:
    """Check for the canonical layout ``(N, *spatial, C)`` with 1 to 3 spatial axes."""
    if not least <= x.ndim <= 5:
        raise ValueError(
            message(
                op,
                f"x must have shape (N, *spatial, C) with {least - 2} to 3 spatial axes, not {x.ndim} axes.",
                describe("x", x),
                "one image (H, W, C) becomes a batch with x[None]; one channel (N, H, W) with x[..., None].",
            )
        )


def channel_vector(op: str, name: str, v: Array | None, channels: int) -> None:
    """Check for ``(C,)`` or any ``(1, ..., 1, C)``."""
    if v is None or (v.ndim and v.shape[-1] == channels and all(n == 1 for n in v.shape[:-1])):
        return
    rule = f"{name} must have shape ({channels},) or (1, ..., 1, {channels})."
    raise ValueError(message(op, rule, describe(name, v)))


def one_of(op: str, name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Check an option against the values it may take."""
    if value not in known:
        raise ValueError(message(op, f"{name} {value!r} is not known.", "", f"known: {', '.join(map(repr, known))}."))
