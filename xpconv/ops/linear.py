"""The linear (fully connected) layer."""

from __future__ import annotations

from dataclasses import dataclass

from xpconv.backend import Array, namespace
from xpconv.dispatch import Call, Needs, Pullback, op
from xpconv.errors import describe_all, message
from xpconv.ops import validate
from xpconv.ops.activation import check_named


@op("x", "w", "b")
def linear(x: Array, w: Array, b: Array | None = None, *, activation: str | None = None) -> Call:
    r"""Linear map of the last axis, with bias and activation.

    ``(..., in) · (in, out) -> (..., out)``

    y[..., o] = activation(Σ_i x[..., i] · w[i, o] + b[o])

    Parameters
    ----------
    x : array, (..., in)
        Any leading axes; real or complex.
    w : array, (in, out)
        Weights, of the dtype of x.
    b : array, (out,) or (1, ..., 1, out), optional
        Bias, added after the sum.
    activation : str, optional
        The name of an activation without parameters, such as ``"relu"``.

    Returns
    -------
    array, (..., out), of the dtype of x

    Raises
    ------
    ValueError
        For shapes that do not fit.
    TypeError
        For integers, or arrays of different libraries, devices or dtypes.

    Notes
    -----
    Kept for the gradient: x for dw, w for dx, and, with an activation, y (relu, relu6, sigmoid, tanh, softplus) or
    the sums before it. Sums are kept in blocks of 128 terms, whose rounding errors grow far slower than those of one
    running sum ([1]_, section 4.2).

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.linear(np.ones((2, 3)), np.ones((3, 4)), np.array([0.0, -1.0, -3.0, -4.0]), activation="relu")[0].tolist()
    [3.0, 2.0, 0.0, 0.0]
    """
    validate.arrays("linear", "fc", x=x, w=w, b=b)
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(message("linear", "w must have shape (in, out), neither of them 0.", describe_all(x=x, w=w)))
    if not x.ndim or x.shape[-1] != w.shape[0]:
        turned = "; weights stored as (out, in) go in as w.T" if x.ndim and x.shape[-1] == w.shape[1] else ""
        raise ValueError(
            message(
                "linear",
                f"w expects {w.shape[0]} inputs but x provides {x.shape[-1] if x.ndim else 'no axis of them'}.",
                f"{describe_all(x=x, w=w)} · w (in, out)",
                f"the last axis of x must equal w.shape[0]{turned}.",
            )
        )
    validate.channel_vector("linear", "b", b, w.shape[1])
    check_named("linear", activation, x)
    flat = b if b is None or b.ndim == 1 else namespace(b).reshape(b, (w.shape[1],))
    return _Linear("linear", (x, w, flat), {"activation": activation}, None if b is None else tuple(b.shape))


@dataclass(slots=True)
class _Linear(Call):
    """linear, whose bias reaches the engines as (out,) and whose db leaves in the shape that was given."""

    bias_shape: tuple[int, ...] | None

    def vjp(self, needs: Needs) -> tuple[Array, Pullback]:
        # `super()` finds no class cell in a dataclass with slots.
        y, backward = Call.vjp(self, needs)

        def pullback(dy: Array) -> tuple[Array | None, ...]:
            dx, dw, db = backward(dy)
            return dx, dw, db if db is None else namespace(db).reshape(db, self.bias_shape)

        return y, pullback
