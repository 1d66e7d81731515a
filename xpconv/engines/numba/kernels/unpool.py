"""Max unpooling: the cells of an image go where their indices say, in order, so that of equal ones the last stays.

A task has some neighbouring targets of an image, and looks at all of its cells. An index outside y goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types

from xpconv.engines.numba.kernels.memory import number_type, pointers, words

_AHEAD = 64  # targets that are cleared at a time


@njit
def _share(task, targets, each):
    """The image of a task, and its targets: from the first to before the last."""
    parts = (targets + each - 1) // each
    first = task % parts * each
    return task // parts, first, min(first + each, targets)


def forward(dtype: str) -> Callable[..., Any]:
    """Some targets of y: 0, and what goes there.

    Zeros are written no further ahead than needed, so that they are still in the cache where something else follows.
    Arguments: x, indices, y, cells of x, cells of y, channels, targets of a task.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))

    @njit
    def clear(y, start, stop):
        for i in range(start, stop):
            y[i] = number(0)

    def kernel(args, task, slot):
        x, indices, y, cells, targets, channels = at(args[0]), words(args[1]), at(args[2]), args[3], args[4], args[5]
        image, first, last = _share(task, targets, args[6])
        start, cleared = image * targets, first
        for i in range(image * cells, (image + 1) * cells):
            for c in range(channels):
                target = indices[i * channels + c]
                if cleared <= target < last:
                    stop = min(target + _AHEAD, last)
                    clear(y, (start + cleared) * channels, (start + stop) * channels)
                    cleared = stop
                if first <= target < cleared:
                    y[(start + target) * channels + c] = x[i * channels + c]
        clear(y, (start + cleared) * channels, (start + last) * channels)

    return kernel


def backward(dtype: str) -> Callable[..., Any]:
    """dx = dy at the cells' targets, 0 for those that others have overwritten.

    Where every target has one cell, a byte for each tells so, and that is all. Otherwise the last cell of each is
    looked up. Arguments: dy, indices, dx, cells of x, cells of y, channels, targets of a task, scratch of 4 bytes for
    each number of a task, its bytes for a thread.
    """
    number, at = number_type(dtype), pointers(number_type(dtype))
    flags, integers = pointers(types.uint8), pointers(types.int32)

    @njit
    def spread(dy, indices, dx, seen, cells, channels, first, last, targets):
        """Whether some cells have the same target; indices and dx are those of the image, as dy is."""
        twice = 0
        for i in range((last - first) * channels):
            seen[i] = 0
        for i in range(0, cells * channels, channels):
            for c in range(channels):
                target = indices[i + c]
                if first <= target < last:
                    flag = (target - first) * channels + c
                    twice |= seen[flag]
                    seen[flag] = 1
                    dx[i + c] = dy[target * channels + c]
                elif first == 0 and (target < 0 or target >= targets):
                    dx[i + c] = number(0)
        return twice != 0

    @njit
    def keep_last(indices, dx, stayed, cells, channels, first, last):
        for i in range(cells):
            for c in range(channels):
                target = indices[i * channels + c]
                if first <= target < last:
                    stayed[(target - first) * channels + c] = i
        for i in range(cells):
            for c in range(channels):
                target = indices[i * channels + c]
                if first <= target < last and stayed[(target - first) * channels + c] != i:
                    dx[i * channels + c] = number(0)

    def kernel(args, task, slot):
        cells, targets, channels, scratch = args[3], args[4], args[5], args[7] + slot * args[8]
        image, first, last = _share(task, targets, args[6])
        dy = at(args[0] + image * targets * channels * size)
        indices, dx = words(args[1] + image * cells * channels * 8), at(args[2] + image * cells * channels * size)
        if spread(dy, indices, dx, flags(scratch), cells, channels, first, last, targets):
            keep_last(indices, dx, integers(scratch), cells, channels, first, last)

    size = number.bitwidth // 8
    return kernel
