"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.arrays import check_array
from xpconv.backend import Array, library
from xpconv.dispatch import Call, op
from xpconv.errors import describe, message
from xpconv.kinds import dtype_kind
from xpconv.ops import validate


@op("x")
def dropout(x: Array, rate: float, *, key: tuple[int, int | Array]) -> Call:
    r"""Drop elements at random and scale up those that stay, ``x · keep / (1 - rate)``.

    Element i, in row-major order, stays where its 32 random bits are at least ``floor(rate · 2**32)``. The bits are
    word i % 4 of Philox-4x32-10 ([2]_) with the seed as its key and (i // 4, counter), 64 bits each and low words
    first, as its counter: the same on every backend.

    Parameters
    ----------
    x : array, any shape
        Real.
    rate : float
        The share to drop, 0 <= rate < 1.
    key : (seed, counter)
        The seed an int, the counter an int or a 0-d integer array on the device of x, both in 0..2**64-1. Each key
        has its own mask: count up to draw anew.

    Returns
    -------
    array of the shape and dtype of x; 0 where dropped, whatever x holds there

    Raises
    ------
    ValueError
        For a rate outside 0 <= rate < 1, or a key out of range.
    TypeError
        For arrays that are not real floating-point, or a key that is not a pair of integers.

    Notes
    -----
    Kept for the gradient: the mask, one byte per element.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to
       prevent neural networks from overfitting", Journal of Machine Learning Research 15, 2014.
    .. [2] J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
       SC 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.dropout(np.ones(8), 0.5, key=(0, 0)).tolist()
    [0.0, 2.0, 2.0, 2.0, 2.0, 0.0, 2.0, 0.0]
    """
    validate.arrays("dropout", x=x)
    rate = validate.number("dropout", "rate", rate, least=0)
    if rate >= 1:
        raise ValueError(message("dropout", f"rate must be below 1, not {rate!r}."))
    if not isinstance(key, tuple) or len(key) != 2:
        raise TypeError(message("dropout", f"key must be a pair (seed, counter), not {key!r}."))
    seed = _word("seed", key[0])
    counter = _word("counter", key[1]) if isinstance(key[1], (int, np.integer)) else _counter_array(x, key[1])
    return Call("dropout", (x,), {"rate": rate, "seed": seed, "counter": counter})


def _word(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(message("dropout", f"the {name} of the key must be an integer, not {value!r}."))
    if not 0 <= value < 2**64:
        raise ValueError(message("dropout", f"the {name} of the key must lie in 0..2**64-1, not {value!r}."))
    return int(value)


def _counter_array(x: Array, counter: Any) -> Array:
    check_array("dropout", "counter", counter)
    alike = library(counter) == library(x) and counter.device == x.device
    if counter.ndim or dtype_kind(counter.dtype) != "i" or not alike:
        rule = "a counter that is an array must be a 0-d integer one, of the library and device of x."
        given = f"{describe('counter', counter)} of {library(counter)} on {counter.device}"
        raise TypeError(message("dropout", rule, f"{given} · x of {library(x)} on {x.device}"))
    return counter
