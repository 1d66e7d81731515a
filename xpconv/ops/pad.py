"""Padding, as an op of its own."""

from __future__ import annotations

import numbers
from typing import Any

from xpconv.backend import Array, namespace
from xpconv.dispatch import Call, op
from xpconv.errors import describe, dtype_name, message
from xpconv.kinds import dtype_kind
from xpconv.ops import validate
from xpconv.window import Padding, conv_window

MODES = ("constant", "reflect", "edge", "wrap")
_THEIRS = {"replicate": "mode='edge'", "circular": "mode='wrap'", "zeros": "mode='constant'"}


@op("x")
def pad(x: Array, padding: Padding, *, mode: str = "constant", value: complex = 0.0) -> Call:
    r"""Pad the spatial axes.

    ``(N, *spatial, C) -> (N, *(spatial + before + after), C)``

    y[n, i, c] = x[n, i - before, c] inside; outside, the value, or the cell that the mode names for i.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Of any dtype.
    padding : int, one per axis, or (before, after) per axis
        Cells to add to each spatial axis.
    mode : {"constant", "reflect", "edge", "wrap"}
        As in `numpy.pad`: ``value``; mirrored about the border cell, which is not repeated; the border cell; the
        other end. Padding wider than the axis goes on mirroring or wrapping; ``"reflect"`` repeats an only cell.
    value : number
        For ``"constant"``; it must be a value of the dtype of x.

    Returns
    -------
    array, (N, *(spatial + before + after), C), of the dtype of x

    Raises
    ------
    ValueError
        For negative padding, an unknown mode, a value that the dtype does not hold, or an empty axis to copy from.
    TypeError
        For a value that is no number.

    Notes
    -----
    Kept for the gradient: nothing but the sizes. dx is dy inside, plus dy at every copy.

    References
    ----------
    .. [1] C. R. Harris et al., "Array programming with NumPy", Nature 585, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.pad(np.array([[[1.0], [2.0], [3.0]]]), ((2, 1),), mode="reflect")[0, :, 0].tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    validate.arrays("pad", "ficb", x=x)
    validate.activations("pad", x)
    validate.one_of("pad", "mode", mode, MODES, _THEIRS)
    if isinstance(padding, str):
        remedy = "known: integers, (before, after) pairs."
        raise ValueError(message("pad", f"padding {padding!r} is not known.", "", remedy))
    sizes = tuple(x.shape[1:-1])
    # Windows of one cell: their padding is this op's.
    pairs = conv_window("pad", tuple(max(n, 1) for n in sizes), (1,) * len(sizes), padding=padding).padding
    if mode != "constant" and any(n == 0 < sum(pair) for n, pair in zip(sizes, pairs, strict=True)):
        raise ValueError(message("pad", f"mode {mode!r} has no cell to copy from on an empty axis.", describe("x", x)))
    return Call("pad", (x,), {"padding": pairs, "mode": mode, "value": _value(x, value)})


def _value(x: Array, value: Any) -> Any:
    """The value as a Python scalar of the kind of x's dtype."""
    kind = dtype_kind(x.dtype)
    given = f"given: value={value!r} · {describe('x', x)}"
    if not isinstance(value, numbers.Number):
        raise TypeError(message("pad", "value must be a number.", given))
    try:
        scalar = {"b": bool, "i": int, "f": float, "c": complex}[kind](value)
    except (TypeError, ValueError, OverflowError):
        scalar = None
    if scalar is None or (kind in "ib" and (scalar != value or not _in_range(x, scalar))):
        raise ValueError(message("pad", f"{dtype_name(x.dtype)} does not hold the value.", given))
    return scalar


def _in_range(x: Array, value: int) -> bool:
    xp = namespace(x)
    return dtype_kind(x.dtype) == "b" or xp.iinfo(x.dtype).min <= value <= xp.iinfo(x.dtype).max
