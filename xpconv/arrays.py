"""What counts as an array: judged by type and metadata, never by looking at values."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from xpconv.backend import Array, namespace, type_facts
from xpconv.errors import describe, dtype_name, message

_SOUND: set[np.dtype[Any]] = set()  # NumPy's dtypes that passed: of a plain array nothing else is judged


def check_array(op: str, name: str, x: Any) -> None:
    """Check that one argument is a plain array that the engines can work on, of whatever dtype."""
    if type(x) is np.ndarray and x.dtype in _SOUND:
        return
    lib = _accepted(type(x))  # type: ignore[arg-type]
    if lib is None:
        raise _not_an_array(op, name, x)
    if lib == "numpy":
        _check_numpy(op, name, x)
    elif lib == "torch" and x.requires_grad:
        raise TypeError(
            message(
                op,
                f"{name} is a torch tensor with requires_grad, and PyTorch cannot see the gradients made here.",
                describe(name, x),
                "use exchange.torch.function(op) inside a torch model, or pass tensor.detach() with xpconv.vjp.",
            )
        )


def _check_numpy(op: str, name: str, x: np.ndarray) -> None:
    if dtype_name(x.dtype) == "bfloat16":
        rule = f"{name} is a NumPy bfloat16 array, and NumPy itself has no bfloat16 arithmetic."
        remedy = "cast it: x.astype('float32'); bfloat16 works on CuPy and torch arrays."
        raise TypeError(message(op, rule, describe(name, x), remedy))
    if not x.dtype.isnative:
        rule = f"{name} has the byte order of another machine."
        raise TypeError(message(op, rule, describe(name, x), "cast it: x.astype(x.dtype.newbyteorder('='))."))
    _SOUND.add(x.dtype)


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
    kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    if isinstance(x, np.ma.MaskedArray):
        remedy = "the mask would be lost: fill it first, as in x.filled(0)."
    elif isinstance(x, np.ndarray):
        remedy = "what the subclass means would be lost: pass np.asarray(x)."
    elif name == "dy" and x is None:
        remedy = "the layer that comes after must return from its pullback the gradient of its input."
    elif name == "dy" and isinstance(x, (int, float)):
        remedy = "it is an array of the shape of y: np.ones_like(y)."
    else:
        remedy = "make an array with xpconv.asarray(...)."
    return TypeError(message(op, f"{name} is a {kind}, not a plain array of a known library.", "", remedy))


def stand_in(x: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """An array to ask engines about, like x but for its shape and dtype: one number, seen as that many."""
    xp = namespace(x)
    one = xp.zeros((), dtype=x.dtype if dtype is None else dtype, device=x.device)
    return xp.broadcast_to(one, shape)
