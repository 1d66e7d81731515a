"""Pooling on NumPy arrays, compiled."""

from __future__ import annotations

from xpconv.engines.numba import avgpool, lppool, maxpool, unpool

PRIMITIVES = {**maxpool.PRIMITIVES, **avgpool.PRIMITIVES, **lppool.PRIMITIVES, **unpool.PRIMITIVES}
