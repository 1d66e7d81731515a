"""One node run: its arrays brought to one place and one order of axes, and its results marked with theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv import packing
from xpconv.backend import Array, Backend, get, namespace, to_numpy
from xpconv.exchange.onnx.table import Operator, Order, Step
from xpconv.exchange.onnx.values import (
    Axes,
    Constant,
    Last,
    Placed,
    Value,
    channels_last,
    is_host,
    marked,
    plain,
)


def run(step: Step, operator: Operator, sources: Sequence[Any], place: Backend) -> list[Value]:
    """The results of a node, from values, constants, and `None` for inputs that are left out.

    Shape arithmetic, whose arrays all lie on the host, stays there; else what lies there is moved to ``place``.
    """
    arrays = [s for i, s in enumerate(sources) if s is not None and i not in operator.host]
    if all(isinstance(s, Constant) or is_host(_array(s)) for s in arrays):
        place = get("numpy")
    owners: list[Placed] = []
    args: list[Value] = []
    for i, source in enumerate(sources):
        if source is None:
            args.append(None)
        elif i in operator.host:
            args.append(source.host if isinstance(source, Constant) else to_numpy(plain(source)))
        elif isinstance(source, Constant):  # which the plan has converted
            placed = source.on(place)
            args.append(placed.value)
            if i in step.convert:
                owners.append(placed)
        else:
            value = _moved(source, place)
            args.append(step.convert[i](plain(value)) if i in step.convert else value)
    with packing.offering(tuple(owners)):
        return _ordered(step, operator, args)


def _array(value: Value) -> Array:
    return value.array if isinstance(value, Last) else value


def _moved(value: Value, place: Backend) -> Value:
    if place.library == "numpy" or not is_host(_array(value)):
        return value
    return Last(place.asarray(value.array)) if isinstance(value, Last) else place.asarray(value)


def _ordered(step: Step, operator: Operator, args: list[Value]) -> list[Value]:
    order = step.order or operator.order
    if order is Order.FIRST:
        return _listed(step.run(*(plain(a) for a in args)))
    if order is Order.LAST:
        given = [_last(a) if i in step.images and a is not None else plain(a) for i, a in enumerate(args)]
        return [marked(y) for y in _listed(step.run(*given))]
    places = [i for i, a in enumerate(args) if a is not None and i not in operator.host]
    aligned, axes = _alike([args[i] for i in places])
    for i, array in zip(places, aligned, strict=True):
        args[i] = array
    results = _listed(step.run(axes, *args) if order is Order.AXES else step.run(*args))
    return [Last(y) if axes.last and y.ndim == axes.rank else y for y in results]


def _last(value: Value) -> Array:
    return value.array if isinstance(value, Last) else channels_last(value)


def _alike(values: list[Value]) -> tuple[list[Array], Axes]:
    """Arrays of one order: channels last if any is so, of the highest rank, which the others are broadcast to."""
    rank = max((_array(v).ndim for v in values), default=0)
    if not any(isinstance(v, Last) and v.array.ndim == rank for v in values):
        return [plain(v) for v in values], Axes(rank, False)
    whole = (v.array if isinstance(v, Last) and v.array.ndim == rank else _raised(plain(v), rank) for v in values)
    return list(whole), Axes(rank, True)


def _raised(x: Array, rank: int) -> Array:
    """An array of ONNX's order as it is broadcast to ``rank`` axes whose channels are last."""
    if x.ndim == 0:
        return x
    return channels_last(namespace(x).reshape(x, (*(1,) * (rank - x.ndim), *x.shape)))


def _listed(results: Any) -> list[Array]:
    """The results of a step as arrays; NumPy gives scalars where they have no axes."""
    several = results if isinstance(results, tuple) else (results,)
    return [np.asarray(y) if isinstance(y, np.generic) else y for y in several]
