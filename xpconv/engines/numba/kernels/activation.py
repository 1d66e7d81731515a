"""Activations of whole arrays, which lie in memory without gaps: one kernel for each and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic

from xpconv.engines.numba.kernels.lanes import Lanes
from xpconv.engines.numba.kernels.mathematics import (
    SLOPES,
    VALUES,
    exp,
    exp_minus_one,
    gelu,
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    real,
)
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.vectors import VectorType, store_past_caches, vectors


def _above(x: Lanes, yes: Any, no: Any) -> Lanes:
    return x.compare(">", 0.0).choose(yes, no, x)


def _clip(x: Lanes, least: Lanes, most: Lanes) -> Lanes:
    x = x.compare("<", least).choose(least, x, x)
    return x.compare(">", most).choose(most, x, x)


def _clip_grad(x: Lanes, dy: Lanes, least: Lanes, most: Lanes) -> Lanes:
    return x.compare(">=", least).choose(x.compare("<=", most).choose(dy, 0.0, dy), 0.0, dy)


def _line_grad(x: Lanes, dy: Lanes, alpha: Lanes, beta: Lanes) -> Lanes:
    y = alpha * x + beta
    return y.compare(">", 0.0).choose(y.compare("<", 1.0).choose(alpha * dy, 0.0, dy), 0.0, dy)


# Of (x, two parameters), and of (kept, dy, two parameters); those of one parameter or none leave the others alone.
_VALUES: dict[str, Callable[..., Lanes]] = {name: lambda x, a, b, f=f: f(x) for name, f in VALUES.items()} | {
    "clip": _clip,
    "leaky_relu": lambda x, slope, b: _above(x, x, slope * x),
    "elu": lambda x, alpha, b: _above(x, x, alpha * exp_minus_one(x.at_most(0.0))),
    "hard_sigmoid": lambda x, alpha, beta: (alpha * x + beta).at_least(0.0).at_most(1.0),
    "gelu": lambda x, a, b: gelu(x),
    "gelu_tanh": lambda x, a, b: gelu_tanh(x),
}
_SLOPES: dict[str, Callable[..., Lanes]] = {name: lambda x, dy, a, b, f=f: f(x, dy) for name, f in SLOPES.items()} | {
    "clip": _clip_grad,
    "leaky_relu": lambda x, dy, slope, b: dy * _above(x, 1.0, slope),
    "elu": lambda x, dy, alpha, b: dy * _above(x, 1.0, alpha * exp(x.at_most(0.0))),
    "hard_sigmoid": _line_grad,
    "gelu": lambda x, dy, a, b: gelu_grad(x, dy),
    "gelu_tanh": lambda x, dy, a, b: gelu_tanh_grad(x, dy),
}


def forward(name: str, dtype: str, lanes: int, past: bool) -> Callable[..., Any]:
    """y of a run of x, stored ``past`` the caches or not. Arguments: x, y, count, numbers in a run, then two parameters
    as doubles."""
    kind, emit = VectorType(number_type(dtype), lanes), _VALUES[name]

    @intrinsic
    def value(typing_context, x, a, b):
        def codegen(context, builder, signature, args):
            return emit(*(Lanes(builder, arg) for arg in args)).value

        return kind(kind, kind, kind), codegen

    number, at = number_type(dtype), pointers(number_type(dtype))
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    put = store_past_caches if past else store

    def kernel(args, task, slot):
        x, y, count = at(args[0]), at(args[1]), args[2]
        a, b = splat(number(real(args[4]))), splat(number(real(args[5])))
        first = task * args[3]
        last = min(first + args[3], count)
        whole = first + (last - first) // lanes * lanes
        fours = first + (last - first) // (4 * lanes) * (4 * lanes)
        for i in range(first, fours, 4 * lanes):
            for j in range(i, i + 4 * lanes, lanes):
                put(y, j, value(load(x, j), a, b))
        for i in range(fours, whole, lanes):
            put(y, i, value(load(x, i), a, b))
        if whole < last:
            store_some(y, whole, value(load_some(x, whole, last - whole), a, b), last - whole)

    return kernel


def added(name: str | None, dtype: str, lanes: int) -> Callable[..., Any]:
    """y = the activation of x + other, or the sum itself. Arguments: x, other, y, count, numbers in a run."""
    kind, at = VectorType(number_type(dtype), lanes), pointers(number_type(dtype))
    load, store, load_some, store_some, _ = vectors(dtype, lanes)

    @intrinsic
    def value(typing_context, z):
        def codegen(context, builder, signature, args):
            return args[0] if name is None else VALUES[name](Lanes(builder, args[0])).value

        return kind(kind), codegen

    def kernel(args, task, slot):
        x, other, y, count = at(args[0]), at(args[1]), at(args[2]), args[3]
        first = task * args[4]
        last = min(first + args[4], count)
        whole = first + (last - first) // lanes * lanes
        for i in range(first, whole, lanes):
            store(y, i, value(load(x, i) + load(other, i)))
        if whole < last:
            left = last - whole
            store_some(y, whole, value(load_some(x, whole, left) + load_some(other, whole, left)), left)

    return kernel


def backward(name: str, dtype: str, lanes: int, past: bool) -> Callable[..., Any]:
    """dx of a run, stored as `forward` does. Arguments: what was kept, dy, dx, count, numbers in a run, then two
    parameters as doubles."""
    kind, emit = VectorType(number_type(dtype), lanes), _SLOPES[name]

    @intrinsic
    def slope(typing_context, kept, dy, a, b):
        def codegen(context, builder, signature, args):
            return emit(*(Lanes(builder, arg) for arg in args)).value

        return kind(kind, kind, kind, kind), codegen

    number, at = number_type(dtype), pointers(number_type(dtype))
    load, store, load_some, store_some, splat = vectors(dtype, lanes)
    put = store_past_caches if past else store

    def kernel(args, task, slot):
        kept, dy, dx, count = at(args[0]), at(args[1]), at(args[2]), args[3]
        a, b = splat(number(real(args[5]))), splat(number(real(args[6])))
        first = task * args[4]
        last = min(first + args[4], count)
        whole = first + (last - first) // lanes * lanes
        fours = first + (last - first) // (4 * lanes) * (4 * lanes)
        for i in range(first, fours, 4 * lanes):
            for j in range(i, i + 4 * lanes, lanes):
                put(dx, j, slope(load(kept, j), load(dy, j), a, b))
        for i in range(fours, whole, lanes):
            put(dx, i, slope(load(kept, i), load(dy, i), a, b))
        if whole < last:
            left = last - whole
            store_some(dx, whole, slope(load_some(kept, whole, left), load_some(dy, whole, left), a, b), left)

    return kernel
