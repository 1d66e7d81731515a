"""Layouts: activations and weights between this package's order of axes and PyTorch's and ONNX's."""

from __future__ import annotations

from xpconv.arrays import check_array
from xpconv.backend import Array, namespace
from xpconv.errors import describe, message


def to_nhwc(x: Array) -> Array:
    """Channels from the second axis to the last, ``(N, C, *spatial) -> (N, *spatial, C)``.

    Parameters
    ----------
    x : array of any library and dtype, with 1 to 3 spatial axes

    Returns
    -------
    array of the same library and dtype; a view where the library has them

    Raises
    ------
    ValueError
        For another number of axes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange
    >>> exchange.to_nhwc(np.zeros((8, 3, 32, 48))).shape
    (8, 32, 48, 3)
    """
    n = _rank("to_nhwc", "x", x)
    return _permuted(x, (0, *range(2, n), 1))


def to_nchw(x: Array) -> Array:
    """Channels from the last axis to the second, ``(N, *spatial, C) -> (N, C, *spatial)``.

    Parameters, returns and errors as of `to_nhwc`, whose inverse it is.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange
    >>> exchange.to_nchw(np.zeros((8, 32, 48, 3))).shape
    (8, 3, 32, 48)
    """
    n = _rank("to_nchw", "x", x)
    return _permuted(x, (0, n - 1, *range(1, n - 1)))


def to_hwio(w: Array) -> Array:
    """Convolution weights to this package's order, ``(O, C / groups, *kernel) -> (*kernel, C / groups, O)``.

    Those of a transposed convolution, ``(C, O / groups, *kernel)``, become the ``(*kernel, O / groups, C)`` that
    `ops.conv_transpose` takes.

    Parameters
    ----------
    w : array of any library and dtype, with 1 to 3 kernel axes

    Returns
    -------
    array of the same library and dtype; a view where the library has them

    Raises
    ------
    ValueError
        For another number of axes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange
    >>> exchange.to_hwio(np.zeros((16, 3, 5, 7))).shape
    (5, 7, 3, 16)
    """
    n = _rank("to_hwio", "w", w)
    return _permuted(w, (*range(2, n), 1, 0))


def to_oihw(w: Array) -> Array:
    """Convolution weights to PyTorch's order, ``(*kernel, C / groups, O) -> (O, C / groups, *kernel)``.

    Parameters, returns and errors as of `to_hwio`, whose inverse it is.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange
    >>> exchange.to_oihw(np.zeros((5, 7, 3, 16))).shape
    (16, 3, 5, 7)
    """
    n = _rank("to_oihw", "w", w)
    return _permuted(w, (n - 1, n - 2, *range(n - 2)))


def _rank(op: str, name: str, x: Array) -> int:
    check_array(op, name, x)
    if not 3 <= x.ndim <= 5:
        raise ValueError(message(op, f"{name} must have 3 to 5 axes, 1 to 3 of them spatial.", describe("array", x)))
    return x.ndim


def _permuted(x: Array, axes: tuple[int, ...]) -> Array:
    return namespace(x).permute_dims(x, axes)
