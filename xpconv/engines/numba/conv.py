"""Convolution in three directions on NumPy arrays: `choice` says by which algorithm, and here it gets what it needs."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from xpconv.dispatch import Primitive
from xpconv.engines.numba import choice
from xpconv.engines.numba.arrays import (
    copied,
    dense,
    dense_channels,
    empty,
    has_dense_channels,
    kept,
    place,
    unsupported,
)
from xpconv.engines.numba.columns import columns
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.direct import Finish, Weights, direct
from xpconv.engines.numba.fields import Pack
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.outer import outer
from xpconv.engines.numba.team import run, threads_for
from xpconv.engines.numba.tiling import room
from xpconv.engines.numba.winograd import winograd
from xpconv.errors import dtype_name
from xpconv.packing import place_for
from xpconv.runtime import also
from xpconv.window import Window

_FEW = 16  # channels up to which neighbouring cells are taken together, to have more terms for each address
_STRIP = 64  # output channels of a task that packs weights
_TURNING = (direct, winograd)  # which read the weights of an input gradient as they lie


def fprop(x: np.ndarray, w: np.ndarray, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y = activation(conv(x, w) + bias + residual): (N, *size, C) -> (N, *out, O)."""
    p, chosen = _output_step(x, w, window, groups)
    x, source, w = dense_channels(x), w, dense(w)
    c, o = w.shape[-2:]
    y = empty((x.shape[0], *window.out, o), x.dtype)
    sums = empty(y.shape, y.dtype) if epilogue.keep_sums and epilogue.activation is not None else None
    bias, residual = (None if extra is None else dense(extra) for extra in (epilogue.bias, epilogue.residual))
    weights = Weights(place(w), o * w.itemsize, c, o // groups, groups, source, "output")
    chosen.run(x, weights, y, window.size, p, Finish(bias, residual, epilogue.activation, sums), chosen.cut)
    return (y, y if sums is None else sums) if epilogue.keep_sums else y


def dgrad(
    dy: np.ndarray,
    w: np.ndarray,
    *,
    window: Window,
    groups: int,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
) -> np.ndarray:
    """dx = the transpose of `fprop` in x, plus a bias and a residual: (N, *out, O) -> (N, *size, C)."""
    dy, source, w = dense_channels(dy), w, dense(w)
    c, o = w.shape[-2], w.shape[-1] // groups
    dx = empty((dy.shape[0], *window.size, c * groups), dy.dtype)
    finish = Finish(None if bias is None else dense(bias), None if residual is None else dense(residual))
    steps = _input_steps(dy, source, window, groups, bias is None)
    if not steps:  # an axis of size 0
        return dx
    if steps[0].choice.run is columns:
        columns(dy, w, dx, window, steps[0].p, steps[0].choice.cut)
        if finish.residual is not None:
            also(functools.partial(np.add, dx, finish.residual, out=dx))
        return dx
    as_they_lie = Weights(place(w), o * groups * w.itemsize, o, c, groups, source, "input", math.prod(w.shape[:-2]))
    turned = as_they_lie
    if any(chosen.run not in _TURNING for _, chosen in steps):
        packed = kept(source, ("input", groups), lambda: input_weights(w, groups))
        turned = Weights(place(packed), c * groups * w.itemsize, o, c, groups, source, "input")
    for p, chosen in steps:
        weights = as_they_lie if chosen.run in _TURNING else turned
        chosen.run(dy, weights, dx, window.out, p, finish, chosen.cut)
    return dx


def wgrad(x: np.ndarray, dy: np.ndarray, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> np.ndarray:
    """dw = the transpose of `fprop` in w: (N, *size, C), (N, *out, O) -> (*kernel, C / groups, O)."""
    p, chosen = _weight_step(x, window, groups, w_shape)
    x, dy = dense_channels(x), dense(dy)
    dw = empty(w_shape, x.dtype)
    if chosen.run is outer:
        outer(x, dy, dw, window.size, p, groups, chosen.cut)
    else:
        chosen.run(x, dy, dw, window.size, p, chosen.cut)
    return dw


def _output_step(x: Any, w: Any, window: Window, groups: int) -> choice.Step:
    """How `fprop` does it."""
    return choice.output_step(_problem(x, window, groups, w.shape), room(), place_for(w) is not None)


def _input_steps(dy: Any, w: Any, window: Window, groups: int, plain: bool) -> tuple[choice.Step, ...]:
    """How `dgrad` does it."""
    return choice.input_steps(_problem(dy, window, groups, w.shape), room(), place_for(w) is not None, plain)


def _weight_step(x: Any, window: Window, groups: int, w_shape: tuple[int, ...]) -> choice.Step:
    """How `wgrad` does it."""
    return choice.weight_step(_problem(x, window, groups, w_shape), room())


def _problem(x: Any, window: Window, groups: int, w_shape: tuple[int, ...]) -> choice.Problem:
    c, o = w_shape[-2:]
    return choice.Problem(dtype_name(x.dtype), x.shape[0], c, o // groups, groups, window, _runs(x, window, groups))


def _runs(x: Any, window: Window, groups: int) -> bool:
    """Whether neighbouring kernel cells on the last axis read neighbouring memory, and have too few channels alone."""
    if groups > 1 or x.shape[-1] > _FEW or window.kernel[-1] == 1 or window.dilation[-1] > 1:
        return False
    return x.strides[-2] == x.shape[-1] * x.itemsize or not has_dense_channels(x)  # which is copied


def input_weights(w: np.ndarray, groups: int) -> np.ndarray:
    """(*kernel, C / groups, O) -> (cells in reverse order, O / groups, C)."""
    c, o = w.shape[-2], w.shape[-1] // groups
    cells, dtype = math.prod(w.shape[:-2]), dtype_name(w.dtype)
    if c == o == 1:  # nothing to transpose
        return copied(w.reshape(cells, 1, groups)[::-1])
    packed = empty((cells, o, c * groups), w.dtype)
    run(
        address("pack", "transpose", dtype, machine().lanes(dtype)),
        cells * groups * -(-o // _STRIP),
        *Pack(place(w), place(packed), cells, groups, c, o, _STRIP),
        threads=threads_for(4 * w.size),
    )
    return packed


def _declines(x: Any, w: Any, *, groups: int, w_shape: tuple[int, ...] | None = None, **_: Any) -> str | None:
    c, o = (w.shape if w_shape is None else w_shape)[-2:]
    if groups > 1 and c == 1 and o > groups:
        return "leaves depthwise convolutions with several outputs of a channel to others"
    return unsupported(x, w)


def _dgrad_declines(dy: Any, w: Any, *, groups: int, **_: Any) -> str | None:
    if groups > 1 and w.shape[-2] == 1 and w.nbytes > room().scratch:
        return f"would pack {w.nbytes} bytes of depthwise weights, more than workspace_limit allows"
    return _declines(dy, w, groups=groups)


def _describe_fprop(x: Any, w: Any, *, window: Window, groups: int, epilogue: Any) -> str:
    return choice.told([_output_step(x, w, window, groups).choice])


def _describe_dgrad(dy: Any, w: Any, *, window: Window, groups: int, bias: Any, residual: Any) -> str:
    return choice.told([step.choice for step in _input_steps(dy, w, window, groups, bias is None)])


def _describe_wgrad(x: Any, dy: Any, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> str:
    return choice.told([_weight_step(x, window, groups, w_shape).choice])


PRIMITIVES: dict[str, Primitive] = {
    "conv_fprop": Primitive(fprop, declines=_declines, describe=_describe_fprop),
    "conv_dgrad": Primitive(dgrad, declines=_dgrad_declines, describe=_describe_dgrad),
    "conv_wgrad": Primitive(wgrad, declines=_declines, describe=_describe_wgrad),
}
