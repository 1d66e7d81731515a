"""Normalisation across neighbouring channels."""

from __future__ import annotations

from xpconv.arguments import integer
from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.ops import validate


@op("x")
def local_response_norm(x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Call:
    r"""Local response normalisation: each channel by the squares of its neighbours.

    ``(N, *spatial, C) -> (N, *spatial, C)``

    y[c] = x[c] / (k + alpha / size · Σ_j x[j]²) ** beta, j from c - size // 2 to c + (size - 1) // 2 as far as there
    are channels.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real.
    size : int
        Channels in a neighbourhood; an even size has the odd one before c.
    alpha, beta, k : float
        As in the formula; alpha is divided by the size even at the borders.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For a size below 1, or a number that is none (nan).
    TypeError
        For arrays that are not real floating-point, or an alpha, beta or k that is no real number.

    Notes
    -----
    Kept for the gradient: x. ONNX puts the odd channel of an even size after c.

    References
    ----------
    .. [1] A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural
       networks", NIPS 2012, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.local_response_norm(np.array([[1.0, 2.0, 2.0]]), 3, alpha=3.0, beta=1.0, k=0.0).round(4).tolist()
    [[0.2, 0.2222, 0.25]]
    """
    validate.arrays("local_response_norm", x=x)
    validate.activations("local_response_norm", x, least=2)
    cells = integer("local_response_norm", "size", size, least=1)
    given = {"alpha": alpha, "beta": beta, "k": k}
    numbers = {name: validate.number("local_response_norm", name, value) for name, value in given.items()}
    return Call("local_response_norm", (x,), {"size": cells, **numbers})
