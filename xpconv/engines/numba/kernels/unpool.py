"""Max unpooling: the cells of an image go where their indices say, in order, so that of equal ones the last stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types

from xpconv.engines.numba.kernels.memory import number_type, pointers, words


@njit
def _share(task, channels, width):
    """The image of a task, and its channels: from the first to before the last."""
    parts = (channels + width - 1) // width
    first = task % parts * width
    return task // parts, first, min(first + width, channels)


def forward(dtype: str) -> Callable[..., Any]:
    """y of some channels of an image: 0, and what goes there.

    Zeros are written no further ahead than needed, so that they are still in the cache where something else follows.
    Arguments: x, indices, y, cells of x, cells of y, channels, channels of a task. An index outside y goes nowhere.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))

    @njit
    def clear(y, start, stop, channels, first, last):
        if last - first == channels:
            for i in range(start * channels, stop * channels):
                y[i] = number(0)
        else:
            for i in range(start, stop):
                for c in range(first, last):
                    y[i * channels + c] = number(0)

    def kernel(args, task, slot):
        x, indices, y, cells, targets, channels = at(args[0]), words(args[1]), at(args[2]), args[3], args[4], args[5]
        image, first, last = _share(task, channels, args[6])
        start, cleared = image * targets, 0
        for i in range(image * cells, (image + 1) * cells):
            for c in range(first, last):
                target = indices[i * channels + c]
                if cleared <= target < targets:
                    clear(y, start + cleared, start + target + 1, channels, first, last)
                    cleared = target + 1
                if 0 <= target < cleared:
                    y[(start + target) * channels + c] = x[i * channels + c]
        clear(y, start + cleared, start + targets, channels, first, last)

    return kernel


def backward(dtype: str) -> Callable[..., Any]:
    """dx of some channels of an image: dy at the targets of the cells that stayed there.

    Arguments: dy, indices, dx, cells of x, cells of y, channels, channels of a task, scratch for which cell stayed at
    each target, its bytes for a thread.
    """
    number, at, integers = number_type(dtype), pointers(number_type(dtype)), pointers(types.int32)

    def kernel(args, task, slot):
        dy, indices, dx, cells, targets, channels = at(args[0]), words(args[1]), at(args[2]), args[3], args[4], args[5]
        image, first, last = _share(task, channels, args[6])
        stayed, width = integers(args[7] + slot * args[8]), last - first
        for i in range(cells):
            for c in range(first, last):
                target = indices[(image * cells + i) * channels + c]
                if 0 <= target < targets:
                    stayed[target * width + c - first] = i
        for i in range(cells):
            for c in range(first, last):
                place = (image * cells + i) * channels + c
                target, value = indices[place], number(0)
                if 0 <= target < targets and stayed[target * width + c - first] == i:
                    value = dy[(image * targets + target) * channels + c]
                dx[place] = value

    return kernel
