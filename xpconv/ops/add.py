"""The sum of two arrays of one shape: where the branches of a residual block meet."""

from __future__ import annotations

from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe_all, message
from xpconv.ops import validate
from xpconv.ops.activation import check_named


@op("x", "other")
def add(x: Array, other: Array, *, activation: str | None = None) -> Call:
    r"""Sum of two arrays, with an activation in the same pass over memory.

    y = activation(x + other)

    Parameters
    ----------
    x, other : arrays of one shape and dtype
        Real, or complex where there is no activation.
    activation : str, optional
        The name of an activation without parameters, such as ``"relu"``.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For arrays of different shapes; nothing is broadcast.
    TypeError
        For integers, or arrays of different libraries, devices or dtypes.

    Notes
    -----
    Kept for the gradient: nothing, or, with an activation, y (relu, relu6, sigmoid, tanh, softplus) or the sum.
    Both gradients may be one array.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.add(np.array([1.0, 2.0]), np.array([-3.0, 1.0]), activation="relu").tolist()
    [0.0, 3.0]
    """
    validate.arrays("add", "fc", x=x, other=other)
    if tuple(x.shape) != tuple(other.shape):
        raise ValueError(message("add", "x and other must have one shape.", describe_all(x=x, other=other)))
    check_named("add", activation, x)
    return Call("add", (x, other), {"activation": activation})
