"""Pooling to a given size: adaptive and global."""

from __future__ import annotations

from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe, message
from xpconv.ops import validate
from xpconv.window import Ints, per_axis


@op("x")
def adaptive_avg_pool(x: Array, output_size: Ints) -> Call:
    r"""Average over as many windows as the output is to have.

    ``(N, *spatial, C) -> (N, *output_size, C)``

    y[n, i, c] = mean of x[n, j, c] over ``floor(i·n / o) <= j < ceil((i + 1)·n / o)`` on each axis of n cells and o
    outputs.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or complex.
    output_size : int or one per spatial axis
        Where it does not divide the input, neighbouring windows overlap; it may be larger.

    Returns
    -------
    array, (N, *output_size, C), of the dtype of x

    Raises
    ------
    ValueError
        For a size below 1, or an empty spatial axis.
    TypeError
        For integers.

    Notes
    -----
    Kept for the gradient: nothing but the sizes.

    References
    ----------
    .. [1] K. He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.adaptive_avg_pool(np.arange(5.0).reshape(1, 5, 1), 2)[0, :, 0].tolist()
    [1.0, 3.0]
    """
    validate.arrays("adaptive_avg_pool", "fc", x=x)
    return Call("adaptive_avg_pool", (x,), {"output_size": output_sizes("adaptive_avg_pool", x, output_size)})


@op("x")
def adaptive_max_pool(x: Array, output_size: Ints) -> Call:
    r"""Maximum over as many windows as the output is to have.

    ``(N, *spatial, C) -> (N, *output_size, C)``

    y[n, i, c] = max of x[n, j, c] over the windows of `adaptive_avg_pool`.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or integer.
    output_size : int or one per spatial axis
        As in `adaptive_avg_pool`.

    Returns
    -------
    array, (N, *output_size, C), of the dtype of x
        nan where a window holds one.

    Raises
    ------
    ValueError
        For a size below 1, or an empty spatial axis.
    TypeError
        For complex and bool arrays.

    Notes
    -----
    Of equal maxima the first in row-major order takes dy. Kept for the gradient: for each axis the winning cells of
    its windows, one byte each (four on axes of more than 255 cells).

    References
    ----------
    .. [1] K. He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.adaptive_max_pool(np.arange(5.0).reshape(1, 5, 1), 2)[0, :, 0].tolist()
    [2.0, 4.0]
    """
    validate.arrays("adaptive_max_pool", "fi", x=x)
    return Call("adaptive_max_pool", (x,), {"output_size": output_sizes("adaptive_max_pool", x, output_size)})


@op("x")
def global_avg_pool(x: Array) -> Call:
    r"""Average of each channel: `adaptive_avg_pool` to one cell.

    ``(N, *spatial, C) -> (N, 1, ..., 1, C)``

    y[n, c] = mean of x[n, j, c] over all cells j.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or complex.

    Returns
    -------
    array, (N, 1, ..., 1, C), of the dtype of x

    Raises
    ------
    ValueError
        For an empty spatial axis.
    TypeError
        For integers.

    Notes
    -----
    Kept for the gradient: nothing but the sizes.

    References
    ----------
    .. [1] M. Lin, Q. Chen and S. Yan, "Network in network", arXiv:1312.4400, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.global_avg_pool(np.ones((2, 5, 5, 3))).shape
    (2, 1, 1, 3)
    """
    validate.arrays("global_avg_pool", "fc", x=x)
    return Call("adaptive_avg_pool", (x,), {"output_size": output_sizes("global_avg_pool", x, 1)})


@op("x")
def global_max_pool(x: Array) -> Call:
    r"""Maximum of each channel: `adaptive_max_pool` to one cell.

    ``(N, *spatial, C) -> (N, 1, ..., 1, C)``

    y[n, c] = max of x[n, j, c] over all cells j.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or integer.

    Returns
    -------
    array, (N, 1, ..., 1, C), of the dtype of x

    Raises
    ------
    ValueError
        For an empty spatial axis.
    TypeError
        For complex and bool arrays.

    Notes
    -----
    Kept for the gradient: as `adaptive_max_pool` does.

    References
    ----------
    .. [1] M. Oquab et al., "Is object localization for free?", CVPR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.global_max_pool(np.arange(6.0).reshape(1, 3, 2)).tolist()
    [[[4.0, 5.0]]]
    """
    validate.arrays("global_max_pool", "fi", x=x)
    return Call("adaptive_max_pool", (x,), {"output_size": output_sizes("global_max_pool", x, 1)})


def output_sizes(op: str, x: Array, output_size: Ints) -> tuple[int, ...]:
    """The size asked for on each spatial axis of x, which must have cells to fill it from."""
    validate.activations(op, x)
    if 0 in x.shape[1:-1]:
        raise ValueError(message(op, "every spatial axis must hold a cell.", describe("x", x)))
    return per_axis(op, "output_size", output_size, x.ndim - 2)
