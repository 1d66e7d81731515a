"""Padding of the spatial axes: x in the middle of a larger array, then each axis' borders in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpconv.axes import padded
from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.folds import total

Pairs = tuple[tuple[int, int], ...]


def pad(x: Array, *, needs: Needs, padding: Pairs, mode: str, value: Any) -> tuple[Array, Any]:
    """y = x with borders: (N, *spatial, C) -> (N, *(n + before + after), C)."""
    xp = namespace(x)
    sizes = tuple(x.shape[1:-1])
    shape = (x.shape[0], *(n + lo + hi for n, (lo, hi) in zip(sizes, padding, strict=True)), x.shape[-1])
    y = xp.empty(shape, dtype=x.dtype, device=x.device)
    inner = [slice(lo, lo + n) for n, (lo, _) in zip(sizes, padding, strict=True)]
    y[(slice(None), *inner, slice(None))] = x
    for axis, (n, (lo, hi)) in enumerate(zip(sizes, padding, strict=True)):
        # Of the axes still to come only the middle is there yet to be copied, or to be filled around.
        before, after = (slice(None), *(slice(None),) * axis), (*inner[axis + 1 :], slice(None))
        sources = None if mode == "constant" else padded(n, lo, hi, mode)
        for border in (slice(0, lo), slice(lo + n, lo + n + hi)):
            if border.stop == border.start:
                continue
            if sources is None:
                y[(*before, border, *after)] = value
            else:
                copied = sources[border]
                first, end = int(copied.min()), int(copied.max()) + 1
                cells = y[(*before, slice(lo + first, lo + end), *after)]  # `take` may copy all that it is given
                places = xp.asarray((copied - first).tolist(), dtype=xp.int64, device=x.device)
                y[(*before, border, *after)] = xp.take(cells, places, axis=axis + 1)
    return y, (sizes, padding, mode) if any(needs) else None


def pad_grad(residuals: tuple[tuple[int, ...], Pairs, str], dy: Array, needs: Needs) -> tuple[Array]:
    """dx = dy without the borders, each of whose cells goes to the cell it was copied from."""
    xp = namespace(dy)
    sizes, padding, mode = residuals
    if mode == "constant":
        inner = (slice(lo, lo + n) for n, (lo, _) in zip(sizes, padding, strict=True))
        return (xp.asarray(dy[(slice(None), *inner, slice(None))], copy=True),)
    dx = dy
    for axis, (n, (lo, hi)) in reversed(list(enumerate(zip(sizes, padding, strict=True), start=1))):
        shares, before = dx, (slice(None),) * axis
        dx = xp.asarray(shares[(*before, slice(lo, lo + n), ...)], copy=True)
        for source, copies in _copies(n, lo, hi, mode):
            rows = [shares[(*before, slice(copy, copy + 1), ...)] for copy in copies]
            dx[(*before, slice(source, source + 1), ...)] += total(rows)
    return (dx,)


def _copies(n: int, lo: int, hi: int, mode: str) -> Iterator[tuple[int, list[int]]]:
    """Each cell of an axis that was copied to its borders, and the places of its copies."""
    sources = padded(n, lo, hi, mode)
    border = np.delete(np.arange(lo + n + hi), slice(lo, lo + n))
    for source in np.unique(sources[border]).tolist():
        yield source, border[sources[border] == source].tolist()


PRIMITIVES = {"pad": Primitive(pad, pad_grad)}
