"""Softmax and its logarithm along one axis."""

from __future__ import annotations

from xpconv.arguments import integer
from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe, message
from xpconv.ops import validate


@op("x")
def softmax(x: Array, axis: int = -1) -> Call:
    r"""Softmax: exponentials that sum to 1 along an axis, ``exp(x) / Σ exp(x)``.

    Parameters
    ----------
    x : array, any shape of at least 1 axis
        Real.
    axis : int
        Along which the results sum to 1.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For an axis that x does not have.
    TypeError
        For arrays that are not real floating-point, or an axis that is no integer.

    Notes
    -----
    Kept for the gradient: y, from which dx = y (dy - Σ y · dy). Exponentials are taken of x - max x, so that none
    overflows ([1]_).

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41(4), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.softmax(np.array([1000.0, 1000.0, -1000.0])).tolist()
    [0.5, 0.5, 0.0]
    """
    return Call("softmax", (x,), {"axis": _axis("softmax", x, axis)})


@op("x")
def log_softmax(x: Array, axis: int = -1) -> Call:
    r"""Logarithm of the softmax along an axis, ``x - log Σ exp(x)``.

    Parameters
    ----------
    x : array, any shape of at least 1 axis
        Real.
    axis : int
        Along which the exponentials of the results sum to 1.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError, TypeError
        As `softmax` does.

    Notes
    -----
    Kept for the gradient: y, from which dx = dy - exp(y) · Σ dy.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41(4), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.log_softmax(np.array([0.0, 0.0, -1000.0])).round(4).tolist()
    [-0.6931, -0.6931, -1000.6931]
    """
    return Call("log_softmax", (x,), {"axis": _axis("log_softmax", x, axis)})


def _axis(op: str, x: Array, axis: int) -> int:
    validate.arrays(op, x=x)
    place = integer(op, "axis", axis)
    if not -x.ndim <= place < x.ndim:
        raise ValueError(message(op, f"axis {axis} is not one of the {x.ndim} axes of x.", describe("x", x)))
    return place % x.ndim
