"""Convolution and its transpose: what they mean and what they accept."""

from __future__ import annotations

from xpconv.arguments import integer
from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import describe, describe_all, message
from xpconv.ops import validate
from xpconv.ops.activation import check_named
from xpconv.ops.conv_gradients import ConvCall, ConvTransposeCall
from xpconv.window import Ints, Padding, conv_window, transposed_window


@op("x", "w", "b", "residual")
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    residual: Array | None = None,
    activation: str | None = None,
) -> Call:
    r"""Convolution (cross-correlation) in 1 to 3 dimensions.

    ``(N, *spatial, C) ⋆ (*kernel, C / groups, O) -> (N, *out, O)``

    y[n, i, o] = activation(Σ_{j, c} x[n, i·stride + j·dilation - before, c] · w[j, c, o] + b[o] + residual[n, i, o])
    with ``out = floor((n + before + after - dilation·(kernel - 1) - 1) / stride) + 1`` on each axis, and c running
    over the C / groups input channels of o's group.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Activations; real or complex.
    w : array, (*kernel, C / groups, O)
        Weights, of the dtype of x.
    b : array, (O,) or (1, ..., 1, O), optional
        Bias, added after the sum.
    stride, dilation : int or one per spatial axis
        In cells; dilation 1 means none.
    padding : int, one per axis, (before, after) per axis, or str
        Zero cells: ``"valid"`` (none), ``"same"`` (out = ceil(n / stride), an odd cell at the end), ``"same_lower"``
        (an odd cell at the start), ``"causal"`` (1-D: all before).
    groups : int
        Input and output channels fall into that many groups; ``groups=C`` is a depthwise convolution.
    residual : array, (N, *out, O), optional
        Added before the activation.
    activation : str, optional
        The name of an activation without parameters, such as ``"relu"``.

    Returns
    -------
    array, (N, *out, O), of the dtype of x

    Raises
    ------
    ValueError
        For shapes that do not fit, or a kernel larger than the padded input.
    TypeError
        For integers, or arrays of different libraries, devices or dtypes.

    Notes
    -----
    Kept for the gradient: x, w, and, with an activation, y (relu, relu6, sigmoid, tanh, softplus) or the sums before
    it; in half precision these in float32. dx is the transposed convolution of dy with w, dw the correlation of x
    with dy ([1]_, section 4).

    References
    ----------
    .. [1] V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.conv(np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4)), padding="same").shape
    (1, 5, 5, 4)
    """
    validate.arrays("conv", "fc", x=x, w=w, b=b, residual=residual)
    validate.activations("conv", x)
    groups = _check_weights("conv", x, w, groups)
    channels = w.shape[-2] * groups
    if x.shape[-1] != channels:
        raise _channel_error("conv", x, w, groups)
    validate.channel_vector("conv", "b", b, w.shape[-1])
    check_named("conv", activation, x)
    window = conv_window("conv", tuple(x.shape[1:-1]), tuple(w.shape[:-2]), stride, padding, dilation)
    _check_residual("conv", x, w, residual, (x.shape[0], *window.out, w.shape[-1]))
    return ConvCall("conv", (x, w, b, residual), {}, window, groups, activation)


@op("x", "w", "b", "residual")
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    residual: Array | None = None,
) -> Call:
    r"""Transposed convolution: the gradient of `conv` in its input, as an op of its own.

    ``(N, *spatial, C) , (*kernel, O / groups, C) -> (N, *out, O)``

    y[n, i·stride + j·dilation - before, o] += x[n, i, c] · w[j, o, c], summed over i, j and the c of o's group, plus
    b[o] and the residual at that cell;
    ``out = (n - 1)·stride - before - after + dilation·(kernel - 1) + 1 + output_padding``.

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Activations; real or complex.
    w : array, (*kernel, O / groups, C)
        The kernel of the convolution that maps O channels to C.
    b : array, (O,) or (1, ..., 1, O), optional
        Bias.
    stride, dilation : int or one per spatial axis
        In cells of the output.
    padding : int, one per axis, (before, after) per axis, or str
        Cells cut off the output; ``"same"`` and ``"same_lower"`` give out = n · stride.
    output_padding : int or one per spatial axis
        Cells added to the end of the output; smaller than the stride or the dilation.
    groups : int
        As in `conv`.
    residual : array, (N, *out, O), optional
        Added as the sums are stored.

    Returns
    -------
    array, (N, *out, O), of the dtype of x

    Raises
    ------
    ValueError, TypeError
        As `conv` does.

    Notes
    -----
    Complex weights are conjugated by a gradient but not by this op. Kept for the gradient: x and w. dx is `conv` of
    dy, dw the correlation of dy with x.

    References
    ----------
    .. [1] V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.conv_transpose(np.ones((1, 4, 4, 3)), np.ones((2, 2, 5, 3)), stride=2).shape
    (1, 8, 8, 5)
    """
    validate.arrays("conv_transpose", "fc", x=x, w=w, b=b, residual=residual)
    validate.activations("conv_transpose", x)
    groups = _check_weights("conv_transpose", x, w, groups)
    if x.shape[-1] != w.shape[-1]:
        raise _channel_error("conv_transpose", x, w, groups)
    validate.channel_vector("conv_transpose", "b", b, w.shape[-2] * groups)
    window = transposed_window(
        "conv_transpose", tuple(x.shape[1:-1]), tuple(w.shape[:-2]), stride, padding, dilation, output_padding
    )
    _check_residual("conv_transpose", x, w, residual, (x.shape[0], *window.size, w.shape[-2] * groups))
    return ConvTransposeCall("conv_transpose", (x, w, b, residual), {}, window, groups)


def _check_weights(op: str, x: Array, w: Array, groups: int) -> int:
    """Check the axes of w, and that ``groups`` divides the last; answer groups as an int."""
    if w.ndim != x.ndim:
        rule = f"w must have an axis per spatial axis of x and two of channels, {x.ndim} in all."
        remedy = "one example becomes a batch with x[None]; one channel, without its axis, needs x[..., None]."
        remedy = remedy if w.ndim == x.ndim + 1 else ""
        raise ValueError(message(op, rule, describe_all(x=x, w=w), remedy))
    if 0 in w.shape:
        raise ValueError(message(op, "no axis of w may be empty.", describe_all(x=x, w=w)))
    if type(groups) is not int or groups < 1:
        groups = integer(op, "groups", groups, least=1)
    if w.shape[-1] % groups:
        rule = f"the last axis of w, {w.shape[-1]}, is not a multiple of groups={groups}."
        raise ValueError(message(op, rule, _shapes(op, x, w, groups), "use a divisor of it."))
    return groups


def _check_residual(op: str, x: Array, w: Array, residual: Array | None, expected: tuple[int, ...]) -> None:
    if residual is not None and tuple(residual.shape) != expected:
        rule = f"residual must have the output's shape {expected}."
        raise ValueError(message(op, rule, describe_all(x=x, w=w, residual=residual)))


def _channel_error(op: str, x: Array, w: Array, groups: int) -> ValueError:
    if op == "conv":
        given = f"{x.shape[-1] // groups}" if x.shape[-1] % groups == 0 else f"{x.shape[-1]} in {groups} groups"
        rule, equal = (
            f"w expects {w.shape[-2]} input channels per group but x provides {given}.",
            "groups * w.shape[-2]",
        )
    else:
        rule, equal = f"w expects {w.shape[-1]} input channels but x provides {x.shape[-1]}.", "w.shape[-1]"
    remedy = f"C must equal {equal}; arrays in PyTorch's layout convert with exchange.to_nhwc / to_hwio."
    return ValueError(message(op, rule, _shapes(op, x, w, groups), remedy))


def _shapes(op: str, x: Array, w: Array, groups: int) -> str:
    last = ("C/groups", "O") if op == "conv" else ("O/groups", "C")
    return f"{describe('x', x)} · {describe('w', w, last)} · groups={groups}"
