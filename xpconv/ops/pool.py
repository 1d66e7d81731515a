"""Pooling over sliding windows, and the inverse of a max pool."""

from __future__ import annotations

import math

import numpy as np

from xpconv.arguments import flag
from xpconv.arrays import check_array
from xpconv.backend import Array, library
from xpconv.dispatch import Call, op
from xpconv.errors import describe_all, dtype_name, message
from xpconv.ops import validate
from xpconv.ops.adaptive import output_sizes
from xpconv.window import Ints, Padding, pool_window


@op("x")
def max_pool(
    x: Array,
    kernel_size: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    ties: str = "first",
    return_indices: bool = False,
) -> Call:
    r"""Maximum over sliding windows.

    ``(N, *spatial, C) -> (N, *out, C)``

    y[n, i, c] = max_j x[n, i·stride + j·dilation - before, c], j over the window's cells that are not padding, with
    ``out = floor((n + before + after - dilation·(kernel - 1) - 1) / stride) + 1`` on each axis.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or integer.
    kernel_size, stride, dilation : int or one per spatial axis
        In cells; the stride is the kernel by default.
    padding : int, one per axis, (before, after) per axis, or str
        Cells that are never selected, whatever x holds: ``"valid"`` (none), ``"same"`` (out = ceil(n / stride), an
        odd cell at the end), ``"same_lower"`` (at the start).
    ceil_mode : bool
        Round ``out`` up; a last window that would start in the end padding is dropped.
    ties : {"first", "all"}
        Of equal maxima, the first in row-major order takes dy, or each takes all of it.
    return_indices : bool
        Also return where each maximum (with ties, the first) lies.

    Returns
    -------
    y : array, (N, *out, C), of the dtype of x
        nan where a window holds one.
    indices : array of int64, (N, *out, C), if ``return_indices``
        Flat over the spatial axes of one channel plane; those of a nan lead to the window's first.

    Raises
    ------
    ValueError
        For a kernel larger than the padded input, or a window that holds only padding.
    TypeError
        For complex and bool arrays.

    Notes
    -----
    Kept for the gradient: with ``ties="first"`` the number of the winning cell, one byte per output (four for windows
    of more than 255 cells); with ``"all"`` x and y, where each nan of a window counts as its maximum.

    References
    ----------
    .. [1] K. Yamaguchi et al., "A neural network for speaker-independent isolated word recognition", ICSLP 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.max_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    validate.arrays("max_pool", "fi", x=x)
    validate.activations("max_pool", x)
    validate.one_of("max_pool", "ties", ties, ("first", "all"))
    window = pool_window("max_pool", tuple(x.shape[1:-1]), kernel_size, stride, padding, dilation, ceil_mode)
    return_indices = flag("max_pool", "return_indices", return_indices)
    return Call("max_pool", (x,), {"window": window, "ties": ties, "return_indices": return_indices})


@op("x")
def avg_pool(
    x: Array,
    kernel_size: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: float | None = None,
) -> Call:
    r"""Average over sliding windows.

    ``(N, *spatial, C) -> (N, *out, C)``

    y[n, i, c] = Σ_j x[n, i·stride + j·dilation - before, c] / divisor, with out as in `max_pool`, zeros as padding,
    and by default the number of the window's cells as the divisor.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or complex.
    kernel_size, stride, dilation : int or one per spatial axis
        In cells; the stride is the kernel by default.
    padding : int, one per axis, (before, after) per axis, or str
        As in `max_pool`.
    ceil_mode : bool
        Round ``out`` up; what a window then covers beyond the padding never counts as its cells.
    count_include_pad : bool
        Whether padding counts among a window's cells.
    divisor : number other than 0, optional
        Instead of the number of cells.

    Returns
    -------
    array, (N, *out, C), of the dtype of x

    Raises
    ------
    ValueError
        For a kernel larger than the padded input, a window that holds only padding, or a divisor of 0.
    TypeError
        For integers.

    Notes
    -----
    Kept for the gradient: the divisors, (1, *out, 1) where they differ.

    References
    ----------
    .. [1] Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.avg_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    validate.arrays("avg_pool", "fc", x=x)
    validate.activations("avg_pool", x)
    if divisor is not None:
        divisor = validate.number("avg_pool", "divisor", divisor)
        if divisor == 0:
            raise ValueError(message("avg_pool", "divisor must not be 0.", "", "None divides by the number of cells."))
    window = pool_window("avg_pool", tuple(x.shape[1:-1]), kernel_size, stride, padding, dilation, ceil_mode)
    counted = flag("avg_pool", "count_include_pad", count_include_pad)
    return Call("avg_pool", (x,), {"window": window, "count_include_pad": counted, "divisor": divisor})


@op("x")
def lp_pool(
    x: Array,
    kernel_size: Ints,
    *,
    p: float = 2,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Call:
    r"""Lp norm over sliding windows.

    ``(N, *spatial, C) -> (N, *out, C)``

    y[n, i, c] = (Σ_j abs(x[n, i·stride + j·dilation - before, c])^p)^(1/p), with out as in `max_pool` and zeros
    as padding.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real.
    kernel_size, stride, dilation : int or one per spatial axis
        In cells; the stride is the kernel by default.
    p : number
        Positive and finite.
    padding : int, one per axis, (before, after) per axis, or str
        As in `max_pool`.
    ceil_mode : bool
        Round ``out`` up; a last window that would start in the end padding is dropped.

    Returns
    -------
    array, (N, *out, C), of the dtype of x

    Raises
    ------
    ValueError
        For a kernel larger than the padded input, a window that holds only padding, or such a p.
    TypeError
        For integers and complex arrays.

    Notes
    -----
    Each window is scaled by its largest magnitude, so that powers neither overflow nor vanish. Kept for the gradient:
    x and y. It is 0 where y is 0, and, for every p, where x is 0. Below p = 1, y errs by 1/p roundoffs of its sum.

    References
    ----------
    .. [1] P. Sermanet, S. Chintala and Y. LeCun, "Convolutional neural networks applied to house numbers digit
       classification", ICPR 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.lp_pool(np.array([[[3.0], [-4.0], [1.0], [0.0]]]), 2)[0, :, 0].tolist()
    [5.0, 1.0]
    """
    validate.arrays("lp_pool", "f", x=x)
    validate.activations("lp_pool", x)
    p = validate.number("lp_pool", "p", p)
    if not 0 < p < math.inf:
        remedy = "the norm of p = inf is max_pool of abs(x)."
        raise ValueError(message("lp_pool", "p must be positive and finite.", f"given: p={p!r}", remedy))
    window = pool_window("lp_pool", tuple(x.shape[1:-1]), kernel_size, stride, padding, dilation, ceil_mode)
    return Call("lp_pool", (x,), {"window": window, "p": p})


@op("x", "indices")
def max_unpool(x: Array, indices: Array, output_size: Ints) -> Call:
    r"""Put the outputs of a max pool back where they came from, and zeros elsewhere.

    ``(N, *spatial, C) , (N, *spatial, C) -> (N, *output_size, C)``

    y[n, indices[n, i, c], c] = x[n, i, c], with the indices flat over ``output_size``; of cells with the same index
    the last in row-major order stays.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real, complex or integer.
    indices : array of int64, (N, *spatial, C)
        As `max_pool` returns them with ``return_indices=True``.
    output_size : int or one per spatial axis
        The spatial size of the input of that pool.

    Returns
    -------
    array, (N, *output_size, C), of the dtype of x

    Raises
    ------
    ValueError
        For indices of another shape, or, in a NumPy array, outside the output; in other arrays, which would have to
        be fetched to be looked at, a cell with such an index goes nowhere.
    TypeError
        For indices that are not int64, or of another library or device than x.

    Notes
    -----
    Kept for the gradient: the indices. dx is dy at a cell's target, and 0 for a cell that another overwrote.

    References
    ----------
    .. [1] M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> y, indices = ops.max_pool(np.array([[[1.0], [3.0], [4.0], [2.0]]]), 2, return_indices=True)
    >>> ops.max_unpool(y, indices, 4)[0, :, 0].tolist()
    [0.0, 3.0, 4.0, 0.0]
    """
    validate.arrays("max_unpool", "fic", x=x)
    sizes = output_sizes("max_unpool", x, output_size)
    check_array("max_unpool", "indices", indices)
    given = describe_all(x=x, indices=indices)
    if dtype_name(indices.dtype) != "int64" or library(indices) != library(x) or indices.device != x.device:
        places = f"{given} · {library(x)} on {x.device}, {library(indices)} on {indices.device}"
        raise TypeError(message("max_unpool", "indices must be int64, of the library and device of x.", places))
    if tuple(indices.shape) != tuple(x.shape):
        raise ValueError(message("max_unpool", "indices must have the shape of x.", given))
    cells = math.prod(sizes)
    # As unsigned numbers, negative ones are large: one pass over the indices.
    if isinstance(indices, np.ndarray) and indices.size and indices.view(np.uint64).max() >= cells:
        rule = f"indices must lie in 0..{cells - 1} for an output of {sizes}."
        raise ValueError(message("max_unpool", rule, f"given: {indices.min()} to {indices.max()} · {given}"))
    return Call("max_unpool", (x, indices), {"output_size": sizes})
