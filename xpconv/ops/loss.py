"""Losses: one number per sample or element, or their mean or sum."""

from __future__ import annotations

from xpconv.arrays import check_array
from xpconv.backend import Array, library
from xpconv.dispatch import Call, op
from xpconv.errors import describe_all, dtype_name, message
from xpconv.kinds import dtype_kind
from xpconv.ops import validate

REDUCTIONS = ("mean", "sum", "none")


@op("logits", "labels")
def softmax_cross_entropy(
    logits: Array, labels: Array, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Call:
    r"""Cross-entropy of integer labels under the softmax of logits.

    ``(..., classes) , (...) -> ()``, or ``(...)`` with ``reduction="none"``

    loss = log Σ_c exp(z[c]) - (1 - s) · z[label] - s / classes · Σ_c z[c], with s the label smoothing.

    Parameters
    ----------
    logits : array, (..., classes)
        Real; unnormalised log-probabilities z.
    labels : array, (...)
        Integers of any width in 0..classes-1, of the library and device of the logits. Any other label makes that
        sample's loss and gradient nan: the op does not stop the device to look.
    reduction : {"mean", "sum", "none"}
        Over all samples; the mean of none is 0.
    label_smoothing : float
        The share s of the target, 0 <= s <= 1, that is spread evenly over all classes.

    Returns
    -------
    array, () or (...), of the dtype of the logits

    Raises
    ------
    ValueError
        For shapes that do not fit, an unknown reduction, or a label smoothing outside 0..1.
    TypeError
        For logits that are not real floating-point, labels that are not integers, or arrays in different places.

    Notes
    -----
    Kept for the gradient: logits, labels, and two numbers per sample. Exponentials are taken of z - max z ([1]_).

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41(4), 2021.
    .. [2] C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016 (label smoothing).

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.softmax_cross_entropy(np.log([[0.5, 0.5], [0.9, 0.1]]), np.array([0, 0]), reduction="sum").round(3).tolist()
    0.799
    """
    validate.arrays("softmax_cross_entropy", logits=logits)
    _check_labels("softmax_cross_entropy", logits, labels)
    validate.one_of("softmax_cross_entropy", "reduction", reduction, REDUCTIONS)
    smoothing = validate.number("softmax_cross_entropy", "label_smoothing", label_smoothing, least=0, most=1)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    return Call("softmax_cross_entropy", (logits, labels), options)


@op("y", "target")
def mse(y: Array, target: Array, *, reduction: str = "mean") -> Call:
    r"""Squared error, (y - target)², of each element, or its mean or sum.

    Parameters
    ----------
    y, target : array, any shape, the same for both
        Real.
    reduction : {"mean", "sum", "none"}
        Over all elements; the mean of none is 0.

    Returns
    -------
    array, () or the shape of y, of the dtype of y

    Raises
    ------
    ValueError
        For shapes that differ, which are not broadcast, or an unknown reduction.
    TypeError
        For arrays that are not real floating-point, or not alike.

    Notes
    -----
    Kept for the gradient: y and target; both have one.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 1.5.5.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.mse(np.array([1.0, 2.0]), np.array([1.0, 4.0])).tolist()
    2.0
    """
    return _elementwise("mse", y, target, reduction, ("y", "target"))


@op("logits", "target")
def binary_cross_entropy_with_logits(logits: Array, target: Array, *, reduction: str = "mean") -> Call:
    r"""Cross-entropy of probabilities under the sigmoid of logits, each element on its own.

    loss = max(z, 0) - z · target + log(1 + exp(-|z|)), with z the logits: the form that does not overflow.

    Parameters
    ----------
    logits : array, any shape
        Real.
    target : array, of the shape and dtype of the logits
        The probability that each element is true; not checked to lie in 0..1.
    reduction : {"mean", "sum", "none"}
        Over all elements; the mean of none is 0.

    Returns
    -------
    array, () or the shape of the logits, of their dtype

    Raises
    ------
    ValueError, TypeError
        As `mse` does.

    Notes
    -----
    Kept for the gradient: logits and target; both have one.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.binary_cross_entropy_with_logits(np.array([0.0, 1000.0]), np.array([1.0, 1.0])).round(4).tolist()
    0.3466
    """
    return _elementwise("binary_cross_entropy_with_logits", logits, target, reduction, ("logits", "target"))


def _elementwise(op: str, y: Array, target: Array, reduction: str, names: tuple[str, str]) -> Call:
    given = dict(zip(names, (y, target), strict=True))
    validate.arrays(op, **given)
    validate.one_of(op, "reduction", reduction, REDUCTIONS)
    if tuple(y.shape) != tuple(target.shape):
        raise ValueError(message(op, f"{names[0]} and target must have the same shape.", describe_all(**given)))
    return Call(op, (y, target), {"reduction": reduction})


def _check_labels(op: str, logits: Array, labels: Array) -> None:
    check_array(op, "labels", labels)
    if dtype_kind(labels.dtype) != "i":
        rule = f"labels must be integers, not {dtype_name(labels.dtype)}."
        given = describe_all(logits=logits, labels=labels)
        raise TypeError(message(op, rule, given, "one-hot targets become labels with argmax over their last axis."))
    if not validate.together(labels, logits):
        rule = "logits and labels must share library and device; nothing is moved silently."
        places = (f"{name} of {library(x)} on {x.device}" for name, x in (("logits", logits), ("labels", labels)))
        raise TypeError(message(op, rule, " · ".join(places)))
    if not logits.ndim or not logits.shape[-1] or tuple(labels.shape) != tuple(logits.shape[:-1]):
        rule = "logits must have shape (..., classes) and labels the same without the classes."
        raise ValueError(message(op, rule, describe_all(logits=logits, labels=labels)))
