"""Windows as kernels take them: a struct of three axes, passed by value."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from xpconv.backend import Array
from xpconv.engines.cupy.arrays import unsupported
from xpconv.engines.cupy.divider import DIVIDER, divider, dividers
from xpconv.window import Window

_NUMBERS = ("size", "out", "kernel", "stride", "dilation", "before", "after")
_DIVIDERS = {"sizes": "size", "outs": "out", "kernels": "kernel", "steps": "stride"}
_STRUCT = np.dtype(
    [
        *((name, "i8") for name in ("images", "channels")),
        *((name, "i4", 3) for name in _NUMBERS),
        ("packs", DIVIDER),
        *((name, DIVIDER, 3) for name in _DIVIDERS),
        ("lines", DIVIDER),
    ],
    align=True,
)


@functools.lru_cache(maxsize=4096)
def struct(window: Window, images: int, channels: int, packs: int, run: int = 1) -> np.ndarray[Any, Any]:
    """The window over (images, *size, channels), axes that are not there filled with windows of one cell.

    ``packs`` is how many threads share the channels of a cell, ``run`` how many neighbours along the last axis a
    thread takes: places are told in runs then.
    """
    made = np.ones(1, dtype=_STRUCT)
    made["images"], made["channels"] = images, channels
    made["before"], made["after"] = 0, 0
    rank = window.rank
    for name in ("size", "out", "kernel", "stride", "dilation"):
        made[name][0, 3 - rank :] = getattr(window, name)
    made["before"][0, 3 - rank :] = [before for before, _ in window.padding]
    made["after"][0, 3 - rank :] = [after for _, after in window.padding]
    made["packs"], made["lines"] = divider(packs), divider(taps(window) // window.kernel[-1])
    for name, numbers in _DIVIDERS.items():
        *before, last = getattr(window, numbers)
        made[name] = dividers((*before, -(-last // run) if numbers in ("size", "out") else last))
    return made


def outs(window: Window) -> int:
    """Windows in an image."""
    return math.prod(window.out)


def taps(window: Window) -> int:
    """Cells of the kernel."""
    return math.prod(window.kernel)


def alike(x: Array, output_size: tuple[int, ...]) -> Window:
    """The window of an adaptive pool whose windows neither overlap nor differ."""
    size = tuple(x.shape[1:-1])
    kernel = tuple(n // o for n, o in zip(size, output_size, strict=True))
    ones = (1,) * len(size)
    return Window(size, kernel, kernel, ones, ((0, 0),) * len(size), output_size)


def uneven(x: Array, *, output_size: tuple[int, ...], **_: Any) -> str | None:
    """Why an adaptive pool is declined: its windows are not alike, or its array is of the wrong kind."""
    if any(n % o for n, o in zip(x.shape[1:-1], output_size, strict=True)):
        return "pools adaptively to divisors of the size only"
    return unsupported(x)
