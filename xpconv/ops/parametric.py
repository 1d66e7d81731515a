"""Activations with parameters: elementwise, of any shape."""

from __future__ import annotations

from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe_all, message
from xpconv.ops import validate


@op("x")
def clip(x: Array, min: float | None = None, max: float | None = None) -> Call:
    r"""Values cut to an interval, ``min(max(x, lower), upper)``.

    Parameters
    ----------
    x : array, any shape
        Real.
    min, max : float, optional
        Bounds; `None` leaves that side open. Where min > max, every value becomes max.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point, or bounds that are not numbers.

    Notes
    -----
    Kept for the gradient: x. The derivative is 1 inside and on the bounds, 0 outside; nan stays nan.

    References
    ----------
    .. [1] ONNX operator specification, Clip, version 13.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.clip(np.array([-2.0, 0.5, 3.0]), 0.0, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    validate.arrays("clip", x=x)
    lower = None if min is None else validate.number("clip", "min", min)
    upper = None if max is None else validate.number("clip", "max", max)
    return Call("clip", (x,), {"min": lower, "max": upper})


@op("x")
def leaky_relu(x: Array, slope: float = 0.01) -> Call:
    r"""Rectifier with a slope below 0: ``x`` where x > 0, else ``slope · x``.

    Parameters
    ----------
    x : array, any shape
        Real.
    slope : float
        Of the negative side.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point, or a slope that is not a number.

    Notes
    -----
    Kept for the gradient: x. The derivative at 0 is the slope.

    References
    ----------
    .. [1] A. Maas, A. Hannun and A. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.leaky_relu(np.array([-2.0, 3.0]), 0.5).tolist()
    [-1.0, 3.0]
    """
    validate.arrays("leaky_relu", x=x)
    return Call("leaky_relu", (x,), {"slope": validate.number("leaky_relu", "slope", slope)})


@op("x", "slope")
def prelu(x: Array, slope: Array) -> Call:
    r"""Rectifier with a slope that is learnt: ``x`` where x > 0, else ``slope · x``.

    ``(..., C) , (C,) -> (..., C)``

    Parameters
    ----------
    x : array, (..., C)
        Real.
    slope : array, (C,), (1,) or ()
        Of the negative side, for each channel or for all.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For a slope of another shape.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: x and slope. The derivative at 0 is the slope, whose own gradient is Σ min(x, 0) · dy.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers: surpassing human-level performance on
       ImageNet classification", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.prelu(np.array([[-2.0, -2.0]]), np.array([0.5, 2.0])).tolist()
    [[-1.0, -4.0]]
    """
    validate.arrays("prelu", x=x, slope=slope)
    channels = x.shape[-1] if x.ndim else 1
    if tuple(slope.shape) not in ((), (1,), (channels,)) or 0 in slope.shape:
        rule = f"slope must have shape ({channels},), one for each channel, or (1,) or ()."
        raise ValueError(message("prelu", rule, describe_all(x=x, slope=slope)))
    return Call("prelu", (x, slope), {})


@op("x")
def elu(x: Array, alpha: float = 1.0) -> Call:
    r"""Exponential linear unit: ``x`` where x > 0, else ``alpha · (exp(x) - 1)``.

    Parameters
    ----------
    x : array, any shape
        Real.
    alpha : float
        The limit for very negative x is -alpha.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point, or an alpha that is not a number.

    Notes
    -----
    Kept for the gradient: x. The derivative at 0 is alpha.

    References
    ----------
    .. [1] D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network learning by exponential
       linear units (ELUs)", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.elu(np.array([-1.0, 2.0])).round(4).tolist()
    [-0.6321, 2.0]
    """
    validate.arrays("elu", x=x)
    return Call("elu", (x,), {"alpha": validate.number("elu", "alpha", alpha)})


@op("x")
def gelu(x: Array, *, approximate: str = "none") -> Call:
    r"""Gaussian error linear unit, ``x · Φ(x)`` with Φ the normal distribution function.

    Parameters
    ----------
    x : array, any shape
        Real.
    approximate : {"none", "tanh"}
        ``"tanh"``: ``x / 2 · (1 + tanh(sqrt(2 / π) · (x + 0.044715 x³)))``.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For another approximation.
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: x. Φ comes from its own tail, so that large negative x lose no digits.

    References
    ----------
    .. [1] D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415, 2016.
    .. [2] M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc(x) in 0 <= x < ∞",
       Mathematics of Computation 36(153), 1981.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1587, 0.0, 0.8413]
    """
    validate.arrays("gelu", x=x)
    validate.one_of("gelu", "approximate", approximate, ("none", "tanh"))
    return Call("gelu", (x,), {"approximate": approximate})


@op("x")
def hard_sigmoid(x: Array, *, alpha: float = 1 / 6, beta: float = 0.5) -> Call:
    r"""Piecewise form of `sigmoid`, ``min(max(alpha · x + beta, 0), 1)``.

    Parameters
    ----------
    x : array, any shape
        Real.
    alpha, beta : float
        Slope, and value at 0.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point, or parameters that are not numbers.

    Notes
    -----
    Kept for the gradient: x. The derivative is alpha strictly inside 0..1, else 0; nan stays nan.

    References
    ----------
    .. [1] M. Courbariaux, Y. Bengio and J.-P. David, "BinaryConnect: training deep neural networks with binary weights
       during propagations", NIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.hard_sigmoid(np.array([-4.0, 0.0, 1.5, 4.0])).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    validate.arrays("hard_sigmoid", x=x)
    options = {
        "alpha": validate.number("hard_sigmoid", "alpha", alpha),
        "beta": validate.number("hard_sigmoid", "beta", beta),
    }
    return Call("hard_sigmoid", (x,), options)
