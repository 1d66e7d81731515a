"""The eight functions of *Convolutional Neural Networks: Step by Step*, on arrays of any backend.

Activations are ``(m, n_H, n_W, n_C)``, weights ``(f, f, n_C_prev, n_C)``, biases ``(1, 1, 1, n_C)``. Names, arguments,
return values and caches are the course's; the work goes through the dispatcher, so that
``xpconv.use_engine("reference")`` shows the loops and the default is fast. The one difference from `ops` is the
course's own: `pool_backward` gives every tied maximum the whole gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.arrays import check_array
from xpconv.backend import Array, asarray, namespace
from xpconv.derivatives import vjp
from xpconv.dispatch import registered
from xpconv.errors import describe_all, message
from xpconv.ops import avg_pool, conv, max_pool, validate
from xpconv.ops import pad as pad_op

__all__ = [
    "conv_backward",
    "conv_forward",
    "conv_single_step",
    "create_mask_from_window",
    "distribute_value",
    "pool_backward",
    "pool_forward",
    "zero_pad",
]

HParameters = dict[str, int]


def zero_pad(X: Array, pad: int) -> Array:
    """Pad the height and width of every image with zeros.

    ``(m, n_H, n_W, n_C) -> (m, n_H + 2 pad, n_W + 2 pad, n_C)``

    Parameters
    ----------
    X : array, (m, n_H, n_W, n_C)
    pad : int
        Cells added on each side.

    Returns
    -------
    array, of the dtype of X

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import steps
    >>> steps.zero_pad(np.ones((4, 3, 3, 2)), 2).shape
    (4, 7, 7, 2)
    """
    return pad_op(X, pad)


def conv_single_step(a_slice_prev: Array, W: Array, b: Array) -> Any:
    """Apply one filter to one window: ``sum(a_slice_prev * W) + b``.

    Parameters
    ----------
    a_slice_prev, W : array, (f, f, n_C_prev)
        A window of the input, and the filter.
    b : array, (1, 1, 1)
        The filter's bias, added once, after the sum.

    Returns
    -------
    scalar (`numpy.float64` for float64 NumPy arrays; a 0-d array for other libraries)

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import steps
    >>> float(steps.conv_single_step(np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.full((1, 1, 1), 0.5)))
    12.5
    """
    for name, x in (("a_slice_prev", a_slice_prev), ("W", W), ("b", b)):
        check_array("conv_single_step", name, x)
    if tuple(a_slice_prev.shape) != tuple(W.shape) or math.prod(b.shape) != 1:
        rule = "a_slice_prev and W must have the same shape, and b one element."
        raise ValueError(message("conv_single_step", rule, describe_all(a_slice_prev=a_slice_prev, W=W, b=b)))
    xp = namespace(W)
    return conv(a_slice_prev[None, ...], W[..., None], xp.reshape(b, (1,)))[(0,) * (W.ndim + 1)]


def conv_forward(A_prev: Array, W: Array, b: Array, hparameters: HParameters) -> tuple[Array, tuple[Any, ...]]:
    """Convolve a batch of images with n_C filters.

    ``(m, n_H_prev, n_W_prev, n_C_prev), (f, f, n_C_prev, n_C) -> (m, n_H, n_W, n_C)`` with
    ``n_H = floor((n_H_prev - f + 2 pad) / stride) + 1`` and n_W likewise.

    Parameters
    ----------
    A_prev : array, (m, n_H_prev, n_W_prev, n_C_prev)
    W : array, (f, f, n_C_prev, n_C)
    b : array, (1, 1, 1, n_C)
    hparameters : dict
        ``{"stride": int, "pad": int}``.

    Returns
    -------
    Z : array, (m, n_H, n_W, n_C)
    cache : tuple
        ``(A_prev, W, b, hparameters)``, for `conv_backward`.
    """
    _check_channels("conv_forward", A_prev, W)
    Z = conv(A_prev, W, b, **_conv_options("conv_forward", hparameters))
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ: Array, cache: tuple[Any, ...]) -> tuple[Array, Array, Array]:
    """Gradients of `conv_forward`, from that of its output; nothing is convolved forward again.

    Parameters
    ----------
    dZ : array, (m, n_H, n_W, n_C)
    cache : tuple
        What `conv_forward` returned.

    Returns
    -------
    dA_prev, dW, db : arrays, of the shapes of A_prev, W and b
    """
    A_prev, W, b, hparameters = _unpacked("conv_backward", cache, ("A_prev", "W", "b", "hparameters"))
    call: Any = registered(conv).bind(A_prev, W, b, **_conv_options("conv_backward", hparameters))
    _check_gradient("conv_backward", "dZ", dZ, A_prev, (A_prev.shape[0], *call.window.out, W.shape[-1]))
    return call.gradients(dZ, None, (True, True, True, False))[:3]


def pool_forward(A_prev: Array, hparameters: HParameters, mode: str = "max") -> tuple[Array, tuple[Any, ...]]:
    """Take the maximum or the average of each window.

    ``(m, n_H_prev, n_W_prev, n_C) -> (m, n_H, n_W, n_C)`` with ``n_H = floor((n_H_prev - f) / stride) + 1``.

    Parameters
    ----------
    A_prev : array, (m, n_H_prev, n_W_prev, n_C)
    hparameters : dict
        ``{"stride": int, "f": int}``.
    mode : "max" or "average"

    Returns
    -------
    A : array, (m, n_H, n_W, n_C)
    cache : tuple
        ``(A_prev, hparameters)``, for `pool_backward`.
    """
    options = _pool_options("pool_forward", hparameters, mode)
    A = max_pool(A_prev, **options) if mode == "max" else avg_pool(A_prev, **options)
    return A, (A_prev, hparameters)


def pool_backward(dA: Array, cache: tuple[Any, ...], mode: str = "max") -> Array:
    """Gradient of `pool_forward`: to every maximum of its window, or spread evenly over it.

    Parameters
    ----------
    dA : array, (m, n_H, n_W, n_C)
    cache : tuple
        What `pool_forward` returned.
    mode : "max" or "average"

    Returns
    -------
    dA_prev : array, of the shape of A_prev
    """
    A_prev, hparameters = _unpacked("pool_backward", cache, ("A_prev", "hparameters"))
    options = _pool_options("pool_backward", hparameters, mode)
    op = max_pool if mode == "max" else avg_pool
    if mode == "max":
        options["ties"] = "all"
    call = registered(op).bind(A_prev, **options)
    windows = call.options["window"].out
    _check_gradient("pool_backward", "dA", dA, A_prev, (A_prev.shape[0], *windows, A_prev.shape[-1]))
    return vjp(op, A_prev, **options)[1](dA)[0]


def create_mask_from_window(x: Array) -> Array:
    """Mark every maximum of a window.

    Parameters
    ----------
    x : array, (f, f)

    Returns
    -------
    array of bool, of the shape of x

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import steps
    >>> steps.create_mask_from_window(np.array([[1, 3], [3, 2]])).tolist()
    [[False, True], [True, False]]
    """
    check_array("create_mask_from_window", "x", x)
    return x == namespace(x).max(x)


def distribute_value(dz: Any, shape: tuple[int, int]) -> Array:
    """Spread a gradient evenly over a window of that shape.

    Parameters
    ----------
    dz : scalar
        A number, or a 0-d array of any library.
    shape : tuple of int
        ``(n_H, n_W)`` of the window.

    Returns
    -------
    array, (n_H, n_W), filled with ``dz / (n_H n_W)``

    Examples
    --------
    >>> from xpconv import steps
    >>> steps.distribute_value(2.0, (2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if isinstance(dz, np.generic):
        dz = np.asarray(dz)
    elif not hasattr(dz, "shape"):
        dz = asarray(float(dz))
    return namespace(dz).zeros(shape, dtype=dz.dtype, device=dz.device) + dz / math.prod(shape)


def _conv_options(name: str, hparameters: HParameters) -> dict[str, Any]:
    return {"stride": _entry(name, hparameters, "stride"), "padding": _entry(name, hparameters, "pad")}


def _pool_options(name: str, hparameters: HParameters, mode: str) -> dict[str, Any]:
    validate.one_of(name, "mode", mode, ("max", "average"))
    return {"kernel_size": _entry(name, hparameters, "f"), "stride": _entry(name, hparameters, "stride")}


def _entry(name: str, hparameters: HParameters, key: str) -> int:
    try:
        return hparameters[key]
    except (KeyError, TypeError):
        raise ValueError(message(name, f"hparameters needs {key!r}.", f"given: {hparameters!r}")) from None


def _unpacked(name: str, cache: Any, parts: tuple[str, ...]) -> tuple[Any, ...]:
    """What the forward step kept for its backward one."""
    if not isinstance(cache, (tuple, list)) or len(cache) != len(parts):
        forward = name.replace("backward", "forward")
        size = f" of {len(cache)}" if isinstance(cache, (tuple, list)) else ""
        rule = f"cache must be what {forward} returned, ({', '.join(parts)})."
        remedy = f"result, cache = steps.{forward}(...)."
        raise ValueError(message(name, rule, f"given: a {type(cache).__name__}{size}", remedy))
    return tuple(cache)


def _check_channels(name: str, A_prev: Array, W: Array) -> None:
    """Compare channels in the course's words; what else `conv` asks for, it says itself."""
    check_array(name, "W", W)  # of arrays with other names than its own `validate` takes `None` for left out
    validate.arrays(name, "fc", A_prev=A_prev, W=W)
    if A_prev.ndim != W.ndim or W.ndim < 3 or A_prev.shape[-1] == W.shape[-2]:
        return
    rule = f"W expects n_C_prev = {W.shape[-2]} channels, and the last axis of A_prev has {A_prev.shape[-1]}."
    first = A_prev.shape[1] == W.shape[-2]
    remedy = "images with their channels first, (m, n_C, n_H, n_W), go in as exchange.to_nhwc(A_prev)." if first else ""
    evidence = f"{describe_all(A_prev=A_prev, W=W)} · A_prev (m, n_H, n_W, n_C_prev), W (f, f, n_C_prev, n_C)"
    raise ValueError(message(name, rule, evidence, remedy))


def _check_gradient(name: str, label: str, gradient: Array, like: Array, shape: tuple[int, ...]) -> None:
    validate.arrays(name, "fc", **{label: gradient, "A_prev": like})
    if tuple(gradient.shape) != shape:
        rule = f"{label} must have the shape of {label.removeprefix('d')}, {shape}."
        raise ValueError(message(name, rule, f"given: {tuple(gradient.shape)}"))
