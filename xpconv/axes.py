"""Which cells of an axis its padded or resized form reads: said once, in exact integers, for all engines with tables.

The cells are numbered on the host from the sizes alone.
"""

from __future__ import annotations

import numpy as np


def padded(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """The cell that each place of a padded axis copies, -1 for the constant: what NumPy does, done to their numbers."""
    options = {"constant_values": -1} if mode == "constant" else {}
    return np.pad(np.arange(n), (before, after), mode=mode, **options)  # type: ignore[call-overload]


def sampled(n: int, o: int, mode: str, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """The cells that each of o outputs reads of n, and with which weights: both (terms, o).

    A weight is 0 where an output reads fewer cells; it then names a cell that it reads anyway.
    """
    i = np.arange(o)
    if mode == "bilinear":
        above, below = (i * (n - 1), max(o - 1, 1)) if align_corners else (np.maximum((2 * i + 1) * n - o, 0), 2 * o)
        low = above // below
        share = (above - low * below) / below
        high = np.where(share > 0, np.minimum(low + 1, n - 1), low)
        return np.stack([low, high]), np.stack([1 - share, share])
    places = i * n // o if mode == "nearest" else (2 * i + 1) * n // (2 * o)
    return places[None], np.ones((1, o))
