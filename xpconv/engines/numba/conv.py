"""Convolution in three directions on NumPy arrays: which algorithm takes a call, and what it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba import columns as few
from xpconv.engines.numba.arrays import dense, dense_channels, empty, kept, place, unsupported
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.depthwise import depthwise, depthwise_outer
from xpconv.engines.numba.direct import Finish, Weights, direct
from xpconv.engines.numba.fields import Pack
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import outer
from xpconv.engines.numba.plan import Pass, input_passes, output_pass
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.winograd import suits, winograd, winograd_outer
from xpconv.window import Window

_FEW = 16  # channels up to which neighbouring cells are taken together, to have more terms for each address
_WINOGRAD_CHANNELS = 32  # from which on the transforms of a tile cost less than they save
_STRIP = 64  # output channels of a task that packs weights


def fprop(x: np.ndarray, w: np.ndarray, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y = activation(conv(x, w) + bias + residual): (N, *size, C) -> (N, *out, O)."""
    x, source, w = dense_channels(x), w, dense(w)
    c, o = w.shape[-2:]
    y = empty((x.shape[0], *window.out, o), x.dtype)
    sums = empty(y.shape, y.dtype) if epilogue.keep_sums else None
    bias, residual = (None if extra is None else dense(extra) for extra in (epilogue.bias, epilogue.residual))
    weights = Weights(place(w), o * w.itemsize, c, o // groups, groups, source, "output")
    p = output_pass(window, c, _runs(x, window, groups))
    best(x, weights, p)(x, weights, y, window.size, p, Finish(bias, residual, epilogue.activation, sums))
    return y if sums is None else (y, sums)


def dgrad(dy: np.ndarray, w: np.ndarray, *, window: Window, groups: int, bias: np.ndarray | None) -> np.ndarray:
    """dx = the transpose of `fprop` in x, plus a bias: (N, *out, O) -> (N, *size, C)."""
    dy, source, w = dense_channels(dy), w, dense(w)
    c, o = w.shape[-2], w.shape[-1] // groups
    dx = empty((dy.shape[0], *window.size, c * groups), dy.dtype)
    if bias is None and few.suits(w, window, groups):
        few.columns(dy, w, dx, window)
        return dx
    packed = kept(source, ("input", groups), lambda: input_weights(w, groups))
    weights = Weights(place(packed), c * groups * w.itemsize, o, c, groups, source, "input")
    runs = window.stride[-1] == 1 and _runs(dy, window, groups)
    for p in input_passes(window, o, runs):
        best(dy, weights, p)(dy, weights, dx, window.out, p, Finish(None if bias is None else dense(bias)))
    return dx


def wgrad(x: np.ndarray, dy: np.ndarray, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> np.ndarray:
    """dw = the transpose of `fprop` in w: (N, *size, C), (N, *out, O) -> (*kernel, C / groups, O)."""
    x, dy = dense_channels(x), dense(dy)
    dw = empty(w_shape, x.dtype)
    p = output_pass(window, w_shape[-2], _runs(x, window, groups))
    algorithm = best(x, Weights(0, 0, w_shape[-2], w_shape[-1] // groups, groups, dw, ""), p)
    if algorithm is winograd:
        winograd_outer(x, dy, dw, window.size, p)
    elif algorithm is depthwise:
        depthwise_outer(x, dy, dw, window.size, p)
    else:
        outer(x, dy, dw, window.size, p, groups)
    return dw


def best(x: np.ndarray, weights: Weights, p: Pass) -> Callable[..., None]:
    """The algorithm for a pass: Winograd's where it applies and its transforms pay."""
    if weights.groups > 1 and weights.in_channels == weights.out_channels == 1:
        return depthwise
    enough = min(weights.in_channels, weights.out_channels) >= _WINOGRAD_CHANNELS
    return winograd if enough and suits(x, weights, p) else direct


def _runs(x: np.ndarray, window: Window, groups: int) -> bool:
    """Whether neighbouring kernel cells on the last axis read neighbouring memory, and have too few channels alone."""
    side_by_side = window.dilation[-1] == 1 and x.strides[-2] == x.shape[-1] * x.itemsize
    return groups == 1 and x.shape[-1] <= _FEW and window.kernel[-1] > 1 and side_by_side


def input_weights(w: np.ndarray, groups: int) -> np.ndarray:
    """(*kernel, C / groups, O) -> (cells in reverse order, O / groups, C)."""
    c, o = w.shape[-2], w.shape[-1] // groups
    cells, dtype = math.prod(w.shape[:-2]), w.dtype.name
    if c == o == 1:  # nothing to transpose
        return np.array(w.reshape(cells, 1, groups)[::-1])
    packed = empty((cells, o, c * groups), w.dtype)
    run(
        address("pack", "transpose", dtype, machine().lanes(dtype)),
        cells * groups * -(-o // _STRIP),
        *Pack(place(w), place(packed), cells, groups, c, o, _STRIP),
        threads=threads_for(4 * w.size),
    )
    return packed


def _declines(x: Any, w: Any, *, groups: int, w_shape: tuple[int, ...] | None = None, **_: Any) -> str | None:
    *_, c, o = w_shape or w.shape
    if groups > 1 and c == 1 and o > groups:
        return "has no depthwise kernel for several outputs of a channel"
    return unsupported(x, w)


PRIMITIVES: dict[str, Primitive] = {
    "conv_fprop": Primitive(fprop, declines=_declines),
    "conv_dgrad": Primitive(dgrad, declines=_declines),
    "conv_wgrad": Primitive(wgrad, declines=_declines),
}
