"""How arrays lie for a plan: the one place where ours are turned into that, and what comes back into ours.

An image is (N, *spatial, C) in NHWC, as ours are, and (N, C, *spatial) in NCHW; so are weights, once their last axis,
the output channels, has become the first. Copies are CuPy's own, from its pool.
"""

from __future__ import annotations

import math
from typing import Any

import cupy

from xpconv.backend import Array
from xpconv.engines.cudnn import library
from xpconv.packing import place_for

NHWC, NCHW = "NHWC", "NCHW"
_ALIGNMENT = 16  # bytes that plans take for granted
_KEY = ("cudnn", "output channels first")


def strides(dims: tuple[int, ...], layout: str) -> list[int]:
    """Strides, in elements, of (N, C, *spatial)."""
    channels, spatial = dims[1], dims[2:]
    plane, inner = math.prod(spatial), [math.prod(spatial[i + 1 :]) for i in range(len(spatial))]
    return [channels * plane, *([1, *(channels * n for n in inner)] if layout == NHWC else [plane, *inner])]


def ready(x: Array) -> Array:
    """The array itself if plans can read it, else a copy."""
    return x if x.flags.c_contiguous and x.data.ptr % _ALIGNMENT == 0 else cupy.array(x, order="C", copy=True)


def image(x: Array, layout: str) -> Array:
    """(N, *spatial, C), to be read by a plan."""
    return ready(x if layout == NHWC else cupy.moveaxis(x, -1, 1))


def blank(shape: tuple[int, ...], dtype: Any, layout: str) -> Array:
    """(N, *spatial, C), to be written by a plan."""
    n, *spatial, channels = shape
    return cupy.empty(shape if layout == NHWC else (n, channels, *spatial), dtype)


def written(y: Array, layout: str) -> Array:
    """(N, *spatial, C) from what a plan has written, in ours."""
    return y if layout == NHWC else cupy.ascontiguousarray(cupy.moveaxis(y, 1, -1))


def weights(w: Array, layout: str) -> Array:
    """(*kernel, C / groups, O) -> (O, *kernel, C / groups) or (O, C / groups, *kernel), to be read by a plan.

    Each stream has its own: another would not wait until it is made, nor until it is read before its memory goes.
    A captured graph packs anew at every replay, since what a parameter keeps is made and dropped outside of it.
    """
    place = place_for(w)
    if place is None or library.capturing():
        return _turned(w, layout)
    key = (*_KEY, layout, library.stream())
    packed = place.get(key)
    if packed is None:
        packed = place[key] = _turned(w, layout)
    return packed


def _turned(w: Array, layout: str) -> Array:
    return image(cupy.moveaxis(w, -1, 0), layout)


def blank_weights(shape: tuple[int, ...], dtype: Any, layout: str) -> Array:
    """(*kernel, C / groups, O), to be written by a plan."""
    return blank((shape[-1], *shape[:-1]), dtype, layout)


def written_weights(dw: Array, layout: str) -> Array:
    """(*kernel, C / groups, O) from what a plan has written, in one copy."""
    first = dw if layout == NHWC else cupy.moveaxis(dw, 1, -1)
    return cupy.ascontiguousarray(cupy.moveaxis(first, 0, -1))
