"""Pooling on NumPy arrays, compiled."""

from __future__ import annotations

from xpconv.engines.numba import avgpool, maxpool

PRIMITIVES = {**maxpool.PRIMITIVES, **avgpool.PRIMITIVES}
