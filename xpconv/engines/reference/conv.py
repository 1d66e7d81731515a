"""Convolution as it is defined: for every image, every window and every output channel, multiply and sum.

Step by step as in the exercise that the project grew from, for any rank, dilation and groups. Slow on purpose: this
is the text that every fast path is held to. It works in double precision whatever the arrays hold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from xpconv.backend import Array, conjugate, namespace
from xpconv.dispatch import Primitive
from xpconv.engines.portable.activation import activate
from xpconv.window import Window

Index = tuple[Any, ...]


def fprop(x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y[n, i, o] = activation(scale[o] · Σ x_window · w[..., o] + b[o] + residual[n, i, o])."""
    xp = namespace(x)
    x_pad = zero_pad(x, window)
    sums = xp.zeros((x.shape[0], *window.out, w.shape[-1]), dtype=x.dtype, device=x.device)
    for n, i, cells in windows(x.shape[0], window):
        for o, channels in outputs(w, groups):
            a_slice = x_pad[(n, *cells, channels)]
            sums[(n, *i, o)] = xp.sum(a_slice * w[..., o])
            if epilogue.scale is not None:
                sums[(n, *i, o)] *= epilogue.scale[o]
            if epilogue.bias is not None:
                sums[(n, *i, o)] += epilogue.bias[o]
    if epilogue.residual is not None:
        sums += epilogue.residual
    y = sums if epilogue.activation is None else activate(epilogue.activation, sums)
    return (y, sums) if epilogue.keep_sums else y


def dgrad(dy: Array, w: Array, *, window: Window, groups: int, bias: Array | None, residual: Array | None) -> Array:
    """Each dy[n, i, o] goes back, weighted by w[..., o], to the cells of its window."""
    xp = namespace(dy)
    conj_w = conjugate(w)
    channels_in = w.shape[-2] * groups
    dx = xp.zeros((dy.shape[0], *window.size, channels_in), dtype=dy.dtype, device=dy.device)
    dx_pad = zero_pad(dx, window)
    for n, i, cells in windows(dy.shape[0], window):
        for o, channels in outputs(w, groups):
            dx_pad[(n, *cells, channels)] += conj_w[..., o] * dy[(n, *i, o)]
    dx[...] = dx_pad[(slice(None), *inner(window), slice(None))]
    for extra in (bias, residual):
        if extra is not None:
            dx += extra
    return dx


def wgrad(x: Array, dy: Array, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> Array:
    """Each window of x goes, weighted by dy[n, i, o], to w[..., o]."""
    xp = namespace(x)
    x_pad = zero_pad(conjugate(x), window)
    dw = xp.zeros(w_shape, dtype=x.dtype, device=x.device)
    for n, i, cells in windows(x.shape[0], window):
        for o, channels in outputs(dw, groups):
            dw[..., o] += x_pad[(n, *cells, channels)] * dy[(n, *i, o)]
    return dw


def bias_grad(dy: Array) -> Array:
    """Each channel's bias touches every cell of that channel."""
    return namespace(dy).sum(dy, axis=tuple(range(dy.ndim - 1)))


def windows(images: int, window: Window) -> Iterator[tuple[int, Index, Index]]:
    """Image n, place i of the window, and the slices of its cells in the padded input."""
    for n, *i in itertools.product(range(images), *(range(m) for m in window.out)):
        yield (
            n,
            tuple(i),
            tuple(
                slice(at * s, at * s + d * (k - 1) + 1, d)
                for at, s, d, k in zip(i, window.stride, window.dilation, window.kernel, strict=True)
            ),
        )


def outputs(w: Array, groups: int) -> Iterator[tuple[int, slice]]:
    """Output channel o, and the input channels of its group."""
    per_group = w.shape[-2]
    for o in range(w.shape[-1]):
        group = o // (w.shape[-1] // groups)
        yield o, slice(group * per_group, (group + 1) * per_group)


def zero_pad(x: Array, window: Window) -> Array:
    """x with zeros around it, wide enough for every window."""
    room = tuple(max(n + lo + hi, p) for n, (lo, hi), p in zip(window.size, window.padding, window.padded, strict=True))
    padded = namespace(x).zeros((x.shape[0], *room, x.shape[-1]), dtype=x.dtype, device=x.device)
    padded[(slice(None), *inner(window), slice(None))] = x
    return padded


def inner(window: Window) -> Index:
    """Where the unpadded input lies in the padded one."""
    return tuple(slice(lo, lo + n) for n, (lo, _) in zip(window.size, window.padding, strict=True))


def _describe(x: Array, w: Array, *, window: Window, **_: Any) -> str:
    return f"{x.shape[0] * math.prod(window.out) * w.shape[-1]} windows, one at a time"


PRIMITIVES = {
    "conv_fprop": Primitive(fprop, describe=_describe),
    "conv_dgrad": Primitive(dgrad),
    "conv_wgrad": Primitive(wgrad),
    "bias_grad": Primitive(bias_grad),
}
