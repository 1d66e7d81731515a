"""Optimizer updates of all parameters in a launch: SGD, Adam and AdamW, by the formulas of `train.optim`.

Where gradients are clipped, launches over the same parameters go before it that sum up squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpconv.backend import Array, cast
from xpconv.dispatch import Primitive
from xpconv.engines.cupy.arrays import dense
from xpconv.engines.cupy.compiled import DTYPES, integers, kernel, width_of
from xpconv.errors import dtype_name

# As in the kernels' source.
_MOST, _CHUNK, _THREADS = 64, 2048, 256
_UPDATE = np.dtype(
    [
        *((name, "u8", _MOST) for name in ("value", "grad", "first", "second")),
        ("size", "i8", _MOST),
        ("before", "f8", _MOST),
        *((name, "u8") for name in ("rate_at", "steps_at", "share_at")),
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
    clip: tuple[float, float] | None,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """p -= rate · v for every parameter, in place."""
    constants = (momentum, np.int32(nesterov), weight_decay)
    _run("sgd", values, grads, slots, before, rate, steps, clip, constants)


def _adam(
    *values: Array,
    grads: Sequence[Array],
    slots: Sequence[list[Array]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    clip: tuple[float, float] | None,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Adam's or AdamW's step for every parameter, in place."""
    constants = (*betas, eps, weight_decay, np.int32(decoupled))
    _run("adam", values, grads, slots, before, rate, steps, clip, constants)


class _Group(NamedTuple):
    """Up to `_MOST` parameters of a dtype, and what a launch is told of them."""

    dtype: str
    update: np.ndarray
    blocks: int
    width: int
    arrays: list[Array]  # kept until the launch is queued

    def launch(self, name: str, *args: Any) -> None:
        """Run a kernel over all numbers of these parameters."""
        # It counts elements in 64 bits; where a parameter ends within a pack it sees to that.
        kernel("optimizer", name, self.dtype, 1, self.width)((self.blocks,), (_THREADS,), (self.update, *args))


def _run(
    name: str,
    values: Sequence[Array],
    grads: Sequence[Array],
    slots: Sequence[list[Array]],
    before: Sequence[int],
    rate: Any,
    steps: Any,
    clip: tuple[float, float] | None,
    constants: tuple[Any, ...],
) -> None:
    """One launch for every `_MOST` parameters of a dtype."""
    groups = list(_groups(values, grads, slots, before))
    share = _share(groups, clip) if clip is not None and groups else None
    numbers = [(field, scalar, _on_device(scalar)) for field, scalar in (("rate", rate), ("steps", steps))]
    for group in groups:
        for field, scalar, at in numbers:
            group.update[field], group.update[f"{field}_at"] = (scalar, 0) if at is None else (0, at.data.ptr)
        group.update["share_at"] = 0 if share is None else share.data.ptr
        group.launch(name, *constants)


def _groups(
    values: Sequence[Array], grads: Sequence[Array], slots: Sequence[list[Array]], before: Sequence[int]
) -> Iterator[_Group]:
    """All parameters, as launches take them."""
    rest = zip(values, grads, slots, before, strict=True)
    for dtype, every in _by_dtype([one for one in rest if one[0].size]):
        for start in range(0, len(every), _MOST):
            part = every[start : start + _MOST]
            update, arrays = np.zeros((), _UPDATE), list[Array]()
            blocks = 0
            for i, (value, grad, slot, first_step) in enumerate(part):
                slot[:] = map(dense, slot)
                own = (value, _like(grad, value), *slot)
                arrays += own
                for field, array in zip(("value", "grad", "first", "second"), own, strict=False):
                    update[field][i] = array.data.ptr
                update["size"][i], update["before"][i], update["block"][i] = value.size, first_step, blocks
                blocks += -(-value.size // _CHUNK)
            update["count"] = len(part)
            yield _Group(dtype, update, blocks, width_of(_CHUNK, *arrays), arrays)


def _share(groups: list[_Group], clip: tuple[float, float]) -> Array:
    """What counts of each gradient, as `train.clipping` says: one number, which stays on the device."""
    parts, share = (cupy.empty(n, dtype=cupy.float64) for n in (sum(group.blocks for group in groups), 1))
    first = 0
    for group in groups:
        group.launch("squares", parts[first:])
        first += group.blocks
    run = kernel("optimizer", "share", groups[0].dtype, 1, groups[0].width)
    run((1,), (_THREADS,), (parts, share, *integers(first), *map(np.float64, clip)))
    return share


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
