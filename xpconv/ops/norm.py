"""Normalisations: (x - mean) / sqrt(var + eps) · gamma + beta, which differ in what they average over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpconv.arguments import flag, integer
from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe_all, message
from xpconv.ops import validate
from xpconv.ops.activation import check_named


@op("x", "gamma", "beta", "mean", "var", "residual")
def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
    return_stats: bool = False,
    residual: Array | None = None,
    activation: str | None = None,
) -> Call:
    r"""Batch normalisation: each channel by its mean and variance over all other axes.

    ``(..., C) , (C,) , (C,) -> (..., C)``

    y[..., c] = activation((x[..., c] - mean[c]) / sqrt(var[c] + eps) · gamma[c] + beta[c] + residual[..., c])

    Parameters
    ----------
    x : array, (..., C), at least 2 axes
        Real.
    gamma, beta : array, (C,), or None
        Scale and shift; `None` for 1 and 0.
    mean, var : array, (C,), optional
        Statistics to normalise by, both or neither; the gradient reaches them. Default: those of this batch, var
        being the biased one (the sum of squares over the number of terms).
    eps : float
        Added to the variance.
    return_stats : bool
        Return the mean and variance too; gradients are those of y.
    residual : array of the shape of x, optional
        Added before the activation, as at the end of a residual block.
    activation : str, optional
        Name of an activation without parameters, which engines may apply in the same pass.

    Returns
    -------
    array, (..., C), of the dtype of x; or (y, mean, var), the last two (C,)

    Raises
    ------
    ValueError
        For shapes that do not fit, a mean without a variance, a negative eps, or an unknown activation.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: x and a few numbers per channel; what the activation was applied to is computed again. With
    a residual and an activation, y (relu, relu6, sigmoid, tanh, softplus) or the residual too; the residual's gradient
    may be dy itself. The statistics of an empty batch are 0. Squares are summed about a number among the data and
    corrected for what that is off the mean, so that a large offset does no harm ([2]_, equation 1.7).

    References
    ----------
    .. [1] S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal
       covariate shift", ICML 2015.
    .. [2] T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance: analysis and
       recommendations", The American Statistician 37(3), 1983.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.batch_norm(np.array([[1.0], [3.0]]), None, None, eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    validate.arrays("batch_norm", x=x, gamma=gamma, beta=beta, mean=mean, var=var, residual=residual)
    if x.ndim < 2:
        raise ValueError(message("batch_norm", "x needs at least 2 axes, the channels last.", describe_all(x=x)))
    eps = validate.number("batch_norm", "eps", eps, least=0)
    check_named("batch_norm", activation, x)
    for name, v in {"gamma": gamma, "beta": beta, "mean": mean, "var": var}.items():
        _check_shape("batch_norm", name, v, (x.shape[-1],), x)
    if (mean is None) != (var is None):
        raise ValueError(
            message(
                "batch_norm",
                "mean and var go together: pass both, or neither for the statistics of the batch.",
                describe_all(x=x, mean=mean, var=var),
            )
        )
    if residual is not None:
        _check_shape("batch_norm", "residual", residual, tuple(x.shape), x)
    return_stats = flag("batch_norm", "return_stats", return_stats)
    options = {"eps": eps, "return_stats": return_stats, "activation": activation}
    return Call("batch_norm", (x, gamma, beta, mean, var, residual), options)


@op("x", "gamma", "beta")
def layer_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axes: int | Sequence[int] = -1,
    eps: float = 1e-5,
) -> Call:
    r"""Layer normalisation: each sample, or each cell, by its mean and variance over some axes.

    ``(..., C) , (C,) , (C,) -> (..., C)`` for the last axis

    y = (x - mean) / sqrt(var + eps) · gamma + beta, with mean and var over ``axes``, for each place on the others.

    Parameters
    ----------
    x : array, any shape of at least 1 axis
        Real.
    gamma, beta : array, the sizes of ``axes`` in ascending order, optional
        Scale and shift.
    axes : int or ints
        To average over: -1 each cell over its channels, (1, 2, 3) each image.
    eps : float
        Added to the variance.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For shapes that do not fit, axes that x does not have, or a negative eps.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: x, gamma, and four numbers per average. The variance is the biased one, in two passes as
    in `batch_norm`.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    validate.arrays("layer_norm", x=x, gamma=gamma, beta=beta)
    eps = validate.number("layer_norm", "eps", eps, least=0)
    over = _axes("layer_norm", x, axes)
    for name, v in {"gamma": gamma, "beta": beta}.items():
        _check_shape("layer_norm", name, v, tuple(x.shape[axis] for axis in over), x)
    return Call("layer_norm", (x, gamma, beta), {"axes": over, "eps": eps})


@op("x", "gamma", "beta")
def instance_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5) -> Call:
    r"""Instance normalisation: each channel of each sample by its mean and variance over space.

    ``(N, *spatial, C) , (C,) , (C,) -> (N, *spatial, C)``

    Parameters
    ----------
    x : array, (N, *spatial, C), at least 1 spatial axis
        Real.
    gamma, beta : array, (C,), optional
        Scale and shift.
    eps : float
        Added to the variance.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For shapes that do not fit, or a negative eps.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: x, gamma, and a few numbers per channel of each sample. The variance is the biased one, in
    two passes as in `batch_norm`.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast
       stylization", arXiv:1607.08022, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.instance_norm(np.array([[[1.0, 5.0], [3.0, 5.0]]]), eps=1e-30).tolist()
    [[[-1.0, 0.0], [1.0, 0.0]]]
    """
    validate.arrays("instance_norm", x=x, gamma=gamma, beta=beta)
    validate.activations("instance_norm", x)
    eps = validate.number("instance_norm", "eps", eps, least=0)
    for name, v in {"gamma": gamma, "beta": beta}.items():
        _check_shape("instance_norm", name, v, (x.shape[-1],), x)
    return Call("instance_norm", (x, gamma, beta), {"eps": eps})


@op("x", "gamma", "beta")
def group_norm(
    x: Array, num_groups: int, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5
) -> Call:
    r"""Group normalisation: each group of neighbouring channels of each sample by its mean and variance.

    ``(N, *spatial, C) , (C,) , (C,) -> (N, *spatial, C)``

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real.
    num_groups : int
        Of C / num_groups channels each; 1 averages over a whole sample, C is `instance_norm`.
    gamma, beta : array, (C,), optional
        Scale and shift of each channel.
    eps : float
        Added to the variance.

    Returns
    -------
    array of the shape and dtype of x

    Raises
    ------
    ValueError
        For shapes that do not fit, a number of groups that does not divide C, or a negative eps.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: x, gamma, and a few numbers per channel of each sample. The variance is the biased one, in
    two passes as in `batch_norm`.

    References
    ----------
    .. [1] Y. Wu and K. He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    validate.arrays("group_norm", x=x, gamma=gamma, beta=beta)
    validate.activations("group_norm", x, least=2)
    eps = validate.number("group_norm", "eps", eps, least=0)
    groups = integer("group_norm", "num_groups", num_groups, least=1)
    if x.shape[-1] % groups:
        rule = f"num_groups={groups} must divide the {x.shape[-1]} channels of x."
        raise ValueError(message("group_norm", rule, describe_all(x=x)))
    for name, v in {"gamma": gamma, "beta": beta}.items():
        _check_shape("group_norm", name, v, (x.shape[-1],), x)
    return Call("group_norm", (x, gamma, beta), {"num_groups": groups, "eps": eps})


def _axes(op: str, x: Array, axes: int | Sequence[int]) -> tuple[int, ...]:
    """The axes counted from 0, in ascending order, as engines want them."""
    given = tuple(np.ravel(np.asarray(axes)))
    if not all(hasattr(axis, "__index__") for axis in given):
        raise TypeError(message(op, f"axes must be integers, not {axes!r}."))
    places = sorted({axis.__index__() % max(x.ndim, 1) for axis in given})
    if not given or len(places) < len(given) or not all(-x.ndim <= axis < x.ndim for axis in given):
        rule = f"axes must name some of the {x.ndim} axes of x, each once, not {axes!r}."
        raise ValueError(message(op, rule, describe_all(x=x)))
    return tuple(places)


def _check_shape(op: str, name: str, v: Array | None, shape: tuple[int, ...], x: Array) -> None:
    if v is not None and tuple(v.shape) != shape:
        raise ValueError(message(op, f"{name} must have shape {shape}.", describe_all(x=x, **{name: v})))
