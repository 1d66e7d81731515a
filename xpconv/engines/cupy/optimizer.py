"""Optimizer updates of all parameters in a launch: SGD, Adam and AdamW, by the formulas of `train.optim`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Primitive
from xpconv.engines.cupy.arrays import dense
from xpconv.engines.cupy.compiled import DTYPES, kernel, width_of
from xpconv.errors import dtype_name

# As in the kernels' source.
_MOST, _CHUNK, _THREADS = 64, 2048, 256
_UPDATE = np.dtype(
    [
        *((name, "u8", _MOST) for name in ("value", "grad", "first", "second")),
        ("size", "i8", _MOST),
        ("before", "f8", _MOST),
        *((name, "u8") for name in ("rate_at", "steps_at")),
        *((name, "f8") for name in ("rate", "steps")),
        ("block", "i4", _MOST),
        ("count", "i4"),
    ],
    align=True,
)


def _declines(*values: Array, **options: Any) -> str | None:
    for value in values:
        if dtype_name(value.dtype) not in DTYPES:
            return f"updates no {dtype_name(value.dtype)} parameters"
    return None


def _sgd(
    *values: Array,
    grads: Sequence[Array],
    slots: Sequence[list[Array]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """p -= rate · v for every parameter, in place."""
    _launch("sgd", values, grads, slots, before, rate, steps, (momentum, np.int32(nesterov), weight_decay))


def _adam(
    *values: Array,
    grads: Sequence[Array],
    slots: Sequence[list[Array]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Adam's or AdamW's step for every parameter, in place."""
    constants = (*betas, eps, weight_decay, np.int32(decoupled))
    _launch("adam", values, grads, slots, before, rate, steps, constants)


def _launch(
    name: str,
    values: Sequence[Array],
    grads: Sequence[Array],
    slots: Sequence[list[Array]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    constants: tuple[Any, ...],
) -> None:
    """One launch for every `_MOST` parameters of a dtype."""
    rate_at, steps_at = _on_device(rate), _on_device(steps)
    rest = zip(values, grads, slots, before, strict=True)
    for dtype, group in _by_dtype([one for one in rest if one[0].size]):
        for start in range(0, len(group), _MOST):
            part = group[start : start + _MOST]
            update, arrays = np.zeros((), _UPDATE), list[Array]()
            for field, scalar, at in (("rate", rate, rate_at), ("steps", steps, steps_at)):
                update[field], update[f"{field}_at"] = (scalar, 0) if at is None else (0, at.data.ptr)
            blocks = 0
            for i, (value, grad, slot, first_step) in enumerate(part):
                slot[:] = map(dense, slot)
                own = (value, _like(grad, value), *slot)
                arrays += own  # kept until the launch is queued
                for field, array in zip(("value", "grad", "first", "second"), own, strict=False):
                    update[field][i] = array.data.ptr
                update["size"][i], update["before"][i], update["block"][i] = value.size, first_step, blocks
                blocks += -(-value.size // _CHUNK)
            update["count"] = len(part)
            # It counts elements in 64 bits; where a parameter ends within a pack it sees to that.
            run = kernel("optimizer", name, dtype, 1, width_of(_CHUNK, *arrays))
            run((blocks,), (_THREADS,), (update, *constants))


def _on_device(scalar: Any) -> Array | None:
    """A scalar that is an array, in double precision."""
    return scalar.astype(cupy.float64, copy=False) if hasattr(scalar, "shape") else None


def _like(grad: Array, value: Array) -> Array:
    """A gradient as the kernel reads it: one that was set by hand may be of another dtype, or broadcast."""
    if grad.dtype != value.dtype or grad.shape != value.shape:
        grad = cupy.broadcast_to(cast(grad, value.dtype), value.shape)
    return dense(grad)


def _by_dtype(parameters: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = {}
    for one in parameters:
        groups.setdefault(dtype_name(one[0].dtype), []).append(one)
    yield from groups.items()


PRIMITIVES = {"sgd_update": Primitive(_sgd, declines=_declines), "adam_update": Primitive(_adam, declines=_declines)}
