"""Plain arguments as users write them: flags are true or false, sizes are integers, NumPy's numbers are Python's."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xpconv.errors import message


def flag(subject: str, name: str, value: Any) -> bool:
    """A choice between two; anything else, which Python would take for one of them, stands in the wrong place."""
    if value is True or value is False:
        return value  # as in nearly every call of an op
    if not isinstance(value, np.bool_):
        raise TypeError(message(subject, f"{name} must be True or False.", f"given: {name}={value!r}"))
    return bool(value)


def integer(subject: str, name: str, value: Any, *, least: int | None = None) -> int:
    """One integer, of whatever type; a boolean or a sequence is none."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # of several, or of another kind
        number = None
    if number is None:
        raise TypeError(message(subject, f"{name} must be an integer, not {value!r}."))
    if least is not None and number < least:
        raise ValueError(message(subject, f"{name} must be at least {least}.", f"given: {name}={value!r}"))
    return number


def shape_of_one(subject: str, value: Any) -> tuple[int, ...]:
    """The shape of one example, without the batch."""
    if not isinstance(value, (tuple, list)):
        remedy = "pass x.shape[1:]." if getattr(value, "shape", ()) else ""
        evidence = f"given: a {type(value).__name__}"
        raise TypeError(message(subject, "input_shape is the shape of one example, (H, W, C).", evidence, remedy))
    return tuple(integer(subject, "input_shape", n, least=0) for n in value)


def size_or_open(subject: str, name: str, value: Any) -> int | None:
    """A size of at least 1, or `None`, which the first input will settle."""
    return None if value is None else integer(subject, name, value, least=1)


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's numbers and lists of them; what is in a list or tuple too."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        parts = [plain(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def flags_of(function: Callable[..., Any]) -> dict[str, int]:
    """The parameters of a function that its signature calls ``bool``, and where they stand among its arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: sys.maxsize if parameter.kind is inspect.Parameter.KEYWORD_ONLY else i
        for i, parameter in enumerate(parameters)
        if parameter.annotation in (bool, "bool")
    }


def check_flags(subject: str, places: Mapping[str, int], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Judge the flags among the arguments of a call, at their `flags_of` places."""
    for name, place in places.items():
        if name in kwargs:
            flag(subject, name, kwargs[name])
        elif place < len(args):
            flag(subject, name, args[place])
