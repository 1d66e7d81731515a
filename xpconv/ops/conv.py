"""Convolution and its transpose. Engines serve three directions; the derivatives are stated here, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from xpconv.backend import Array, namespace
from xpconv.dispatch import Call, Needs, Pullback, op, select
from xpconv.errors import describe_all, message
from xpconv.ops import validate
from xpconv.ops.activation import ACTIVATIONS, FROM_OUTPUT, activation_grad
from xpconv.window import Ints, Padding, Window, conv_window, per_axis, transposed_window


class Epilogue(NamedTuple):
    """What is applied to the sums of a convolution before they are stored: activation(z + bias + residual)."""

    bias: Array | None = None  # (O,)
    residual: Array | None = None  # (N, *out, O)
    activation: str | None = None
    keep_sums: bool = False  # return (y, sums): the gradient of some activations needs what they were applied to


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
    it. dx is the transposed convolution of dy with w, dw the correlation of x with dy ([1]_, section 4).

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
    _check_weights("conv", x, w, groups)
    channels = w.shape[-2] * groups
    if x.shape[-1] != channels or w.shape[-1] % groups:
        raise _channel_error("conv", x, w, groups)
    _check_epilogue("conv", x, w.shape[-1], b, activation)
    window = conv_window("conv", tuple(x.shape[1:-1]), tuple(w.shape[:-2]), stride, padding, dilation)
    expected = (x.shape[0], *window.out, w.shape[-1])
    if residual is not None and tuple(residual.shape) != expected:
        rule = f"residual must have the output's shape {expected}."
        raise ValueError(message("conv", rule, describe_all(x=x, w=w, residual=residual)))
    return _Conv("conv", (x, w, b, residual), {}, window, groups, activation)


@op("x", "w", "b")
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
) -> Call:
    r"""Transposed convolution: the gradient of `conv` in its input, as an op of its own.

    ``(N, *spatial, C) , (*kernel, O / groups, C) -> (N, *out, O)``

    y[n, i·stride + j·dilation - before, o] += x[n, i, c] · w[j, o, c], summed over i, j and the c of o's group, plus
    b[o]; ``out = (n - 1)·stride - before - after + dilation·(kernel - 1) + 1 + output_padding``.

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
    validate.arrays("conv_transpose", "fc", x=x, w=w, b=b)
    validate.activations("conv_transpose", x)
    _check_weights("conv_transpose", x, w, groups)
    if x.shape[-1] != w.shape[-1] or w.shape[-1] % groups:
        raise _channel_error("conv_transpose", x, w, groups)
    _check_epilogue("conv_transpose", x, w.shape[-2] * groups, b, None)
    window = transposed_window(
        "conv_transpose", tuple(x.shape[1:-1]), tuple(w.shape[:-2]), stride, padding, dilation, output_padding
    )
    return _ConvTranspose("conv_transpose", (x, w, b), {}, window, groups)


@dataclass(slots=True)
class _Conv(Call):
    """conv and its derivatives: dx by dgrad, dw by wgrad, db and the residual's from dz, the gradient of the sum."""

    window: Window
    groups: int
    activation: str | None

    def run(self) -> Array:
        x, w, b, residual = self.arrays
        return _fprop(x, w, self.window, self.groups, Epilogue(_flat(b), residual, self.activation))

    def vjp(self, needs: Needs) -> tuple[Array, Pullback]:
        x, w, b, residual = self.arrays
        if self.activation is None or self.activation in FROM_OUTPUT:
            kept = y = self.run()
        else:
            epilogue = Epilogue(_flat(b), residual, self.activation, keep_sums=True)
            y, kept = _fprop(x, w, self.window, self.groups, epilogue)
        if self.activation is None:
            kept = None

        def pullback(dy: Array) -> tuple[Array | None, ...]:
            return self.gradients(dy if kept is None else activation_grad(self.activation, kept, dy), needs)

        return y, pullback

    def gradients(self, dz: Array, needs: Needs) -> tuple[Array | None, ...]:
        """Gradients from dz, that of the sum before the activation; no forward is needed for them."""
        x, w, b, _ = self.arrays
        return (
            _dgrad(dz, w, self.window, self.groups) if needs[0] else None,
            _wgrad(x, dz, self.window, self.groups, w.shape) if needs[1] else None,
            _bias_grad(dz, b) if needs[2] else None,
            dz if needs[3] else None,
        )

    def parts(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        x, w, b, residual = self.arrays
        y = _empty(x, self.window.out, w.shape[-1])
        common = {"window": self.window, "groups": self.groups}
        return [
            ("conv_fprop", (x, w), {**common, "epilogue": Epilogue(_flat(b), residual, self.activation)}),
            ("conv_dgrad", (y, w), {**common, "bias": None}),
            ("conv_wgrad", (x, y), {**common, "w_shape": w.shape}),
        ]


@dataclass(slots=True)
class _ConvTranspose(Call):
    """conv_transpose is dgrad; its own derivatives are fprop and wgrad with the roles of x and dy exchanged."""

    window: Window
    groups: int

    def run(self) -> Array:
        x, w, b = self.arrays
        return _dgrad(x, _conj(w), self.window, self.groups, _flat(b))

    def vjp(self, needs: Needs) -> tuple[Array, Pullback]:
        x, w, b = self.arrays

        def pullback(dy: Array) -> tuple[Array | None, ...]:
            return (
                _fprop(dy, _conj(w), self.window, self.groups, Epilogue()) if needs[0] else None,
                _conj(_wgrad(dy, x, self.window, self.groups, w.shape)) if needs[1] else None,
                _bias_grad(dy, b) if needs[2] else None,
            )

        return self.run(), pullback

    def parts(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        x, w, b = self.arrays
        y = _empty(x, self.window.size, w.shape[-2] * self.groups)
        common = {"window": self.window, "groups": self.groups}
        return [
            ("conv_dgrad", (x, w), {**common, "bias": _flat(b)}),
            ("conv_fprop", (y, w), {**common, "epilogue": Epilogue()}),
            ("conv_wgrad", (y, x), {**common, "w_shape": w.shape}),
        ]


def _fprop(x: Array, w: Array, window: Window, groups: int, epilogue: Epilogue) -> Any:
    options = {"window": window, "groups": groups, "epilogue": epilogue}
    return select("conv_fprop", x, w, **options).run(x, w, **options)


def _dgrad(dy: Array, w: Array, window: Window, groups: int, bias: Array | None = None) -> Array:
    options = {"window": window, "groups": groups, "bias": bias}
    return select("conv_dgrad", dy, w, **options).run(dy, w, **options)


def _wgrad(x: Array, dy: Array, window: Window, groups: int, w_shape: tuple[int, ...]) -> Array:
    options = {"window": window, "groups": groups, "w_shape": tuple(w_shape)}
    return select("conv_wgrad", x, dy, **options).run(x, dy, **options)


def _bias_grad(dy: Array, b: Array) -> Array:
    return namespace(b).reshape(select("bias_grad", dy).run(dy), tuple(b.shape))


def _flat(b: Array | None) -> Array | None:
    return b if b is None or b.ndim == 1 else namespace(b).reshape(b, (b.shape[-1],))


def _conj(x: Array) -> Array:
    """The complex conjugate: dgrad and wgrad are adjoints and conjugate, where a transposed convolution does not."""
    xp = namespace(x)
    return xp.conj(x) if xp.isdtype(x.dtype, "complex floating") else x


def _empty(x: Array, spatial: tuple[int, ...], channels: int) -> Array:
    return namespace(x).empty((x.shape[0], *spatial, channels), dtype=x.dtype, device=x.device)


def _check_weights(op: str, x: Array, w: Array, groups: int) -> None:
    if w.ndim != x.ndim or 0 in w.shape:
        raise ValueError(
            message(
                op,
                f"w must have one axis per spatial axis of x and two of channels, {x.ndim} in all, none of them empty.",
                describe_all(x=x, w=w),
            )
        )
    per_axis(op, "groups", groups, 1)


def _channel_error(op: str, x: Array, w: Array, groups: int) -> ValueError:
    layout = "w (*kernel, C / groups, O)" if op == "conv" else "w (*kernel, O / groups, C)"
    if w.shape[-1] % groups:
        rule = f"the last axis of w, {w.shape[-1]}, is not a multiple of groups={groups}."
    elif op == "conv":
        given = f"{x.shape[-1] // groups} per group" if x.shape[-1] % groups == 0 else f"{x.shape[-1]} in all"
        rule = f"w expects {w.shape[-2]} input channels per group but x provides {given}."
    else:
        rule = f"w expects {w.shape[-1]} input channels but x provides {x.shape[-1]}."
    return ValueError(
        message(
            op,
            rule,
            f"{describe_all(x=x, w=w)} · groups={groups} · {layout}",
            f"C must equal {'groups * w.shape[-2]' if op == 'conv' else 'w.shape[-1]'}; "
            "arrays in PyTorch's layout convert with exchange.to_nhwc / to_hwio.",
        )
    )


def _check_epilogue(op: str, x: Array, channels: int, b: Array | None, activation: str | None) -> None:
    validate.channel_vector(op, "b", b, channels)
    if activation is not None:
        validate.one_of(op, "activation", activation, ACTIVATIONS)
        validate.arrays(activation, "f", x=x)
