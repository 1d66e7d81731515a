"""Activations without parameters: elementwise, of any shape."""

from __future__ import annotations

from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.ops import validate

# Those without parameters, which a convolution or a linear layer can apply as it stores its sums.
ACTIVATIONS = ("relu", "relu6", "silu", "sigmoid", "tanh", "softplus", "hard_swish")


def check_named(op: str, name: str | None, x: Array) -> None:
    """Check the ``activation`` option of an op that applies one to its sums."""
    if name is not None:
        validate.one_of(op, "activation", name, ACTIVATIONS)
        validate.arrays(name, x=x)


def _plain(name: str, x: Array) -> Call:
    validate.arrays(name, x=x)
    return Call(name, (x,), {})


@op("x")
def relu(x: Array) -> Call:
    r"""Rectified linear unit, ``max(x, 0)``.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: y. The derivative at 0 is 0; nan stays nan.

    References
    ----------
    .. [1] V. Nair and G. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.relu(np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return _plain("relu", x)


@op("x")
def relu6(x: Array) -> Call:
    r"""Rectified linear unit capped at 6, ``min(max(x, 0), 6)``.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: y. The derivative at 0 and at 6 is 0; nan stays nan.

    References
    ----------
    .. [1] A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", unpublished manuscript, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.relu6(np.array([-1.0, 2.0, 8.0])).tolist()
    [0.0, 2.0, 6.0]
    """
    return _plain("relu6", x)


@op("x")
def silu(x: Array) -> Call:
    r"""Sigmoid linear unit, ``x / (1 + exp(-x))``, also called swish.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: x.

    References
    ----------
    .. [1] S. Elfwing, E. Uchibe and K. Doya, "Sigmoid-weighted linear units for neural network function approximation
       in reinforcement learning", Neural Networks 107, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.silu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.2689, 0.0, 0.7311]
    """
    return _plain("silu", x)


@op("x")
def sigmoid(x: Array) -> Call:
    r"""Logistic sigmoid, ``1 / (1 + exp(-x))``, accurate to a few ulps in both tails.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: y, from which dx = dy · y (1 - y).

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return _plain("sigmoid", x)


@op("x")
def tanh(x: Array) -> Call:
    r"""Hyperbolic tangent.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: y, from which dx = dy · (1 - y²).

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, G. Orr and K.-R. Müller, "Efficient BackProp", in "Neural Networks: Tricks of the
       Trade", Springer, 1998, section 4.4.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.tanh(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.7616, 0.0, 0.7616]
    """
    return _plain("tanh", x)


@op("x")
def softplus(x: Array) -> Call:
    r"""Smooth rectifier, ``log(1 + exp(x))``, without overflow.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: y, from which dx = dy · (1 - exp(-y)), which is dy · sigmoid(x).

    References
    ----------
    .. [1] C. Dugas, Y. Bengio, F. Bélisle, C. Nadeau and R. Garcia, "Incorporating second-order functional knowledge
       for better option pricing", NIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.softplus(np.array([-1.0, 0.0, 1000.0])).round(4).tolist()
    [0.3133, 0.6931, 1000.0]
    """
    return _plain("softplus", x)


@op("x")
def hard_swish(x: Array) -> Call:
    r"""Piecewise form of `silu`, ``x · min(max(x + 3, 0), 6) / 6``.

    Parameters
    ----------
    x : array, any shape
        Real.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    TypeError
        For arrays that are not real floating-point.

    Notes
    -----
    Kept for the gradient: x. The derivative is 0 at -3 and 1 at 3.

    References
    ----------
    .. [1] A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.hard_swish(np.array([-4.0, 0.0, 1.5, 4.0])).tolist()
    [-0.0, 0.0, 1.125, 4.0]
    """
    return _plain("hard_swish", x)
