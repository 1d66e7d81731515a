"""Clipping of gradients by their norm: the formula, which engines compute beside the update where they offer that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xpconv.backend import Array, cast, namespace
from xpconv.train.working import working

if TYPE_CHECKING:
    from xpconv.nn import Parameter

Clip = tuple[float, float]  # the largest norm, and what is added to the norm that it is divided by
BESIDE = 1e-6  # as PyTorch adds it


def share(parameters: Sequence[Parameter], clip: Clip) -> Array:
    """What all gradients are to be multiplied by: min(1, most / (norm of all + beside)), on the device.

    In double precision, so that no square of a number that is finite in float32 overflows, and dtypes may be mixed.
    """
    squares = [_square(parameter.value, parameter.grad) for parameter in parameters]
    xp = namespace(parameters[0].value)
    norm = xp.sqrt(sum(squares))
    most, beside = clip
    wanted = most / (norm + beside)
    return xp.minimum(wanted, xp.ones_like(wanted))  # nan stays nan


def clipped(grad: Array, share: Array | None) -> Array:
    """A gradient, in its working form, times its share."""
    return grad if share is None else grad * cast(share, grad.dtype)


def _square(value: Any, grad: Any) -> Any:
    """The square of a gradient's norm; one that was set by hand may be broadcast."""
    xp = namespace(grad)
    wide = cast(working(xp.broadcast_to(grad, value.shape)), xp.float64)
    return xp.sum(wide * wide)
