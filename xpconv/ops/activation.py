"""Activations: elementwise, of any shape."""

from __future__ import annotations

from xpconv.backend import Array
from xpconv.dispatch import Call, op, select
from xpconv.ops import validate

# Those without parameters, which a convolution or a linear layer can apply as it stores its sums.
ACTIVATIONS = ("relu", "relu6", "silu", "sigmoid", "tanh", "softplus", "hard_swish")
# Those whose derivative follows from their output: in every engine their residuals are the output itself.
FROM_OUTPUT = ("relu", "relu6", "sigmoid", "tanh", "softplus")


def activation_grad(name: str, kept: Array, dy: Array) -> Array:
    """dx of an activation without parameters; ``kept`` is its output if in `FROM_OUTPUT`, else its input."""
    backward = select(name, kept).backward
    assert backward is not None
    return backward(kept, dy, (True,))[0]


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
    validate.arrays("relu", x=x)
    return Call("relu", (x,), {})
