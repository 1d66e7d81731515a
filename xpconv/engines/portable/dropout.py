"""Dropout by a counter-based generator: the same key drops the same elements on every backend.

Philox-4x32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) in int64 arithmetic, the one integer type whose products and shifts every library has: limbs are kept in
0..2**32-1, and a product that wraps still has the right bits.

The mask is kept for the gradient rather than drawn again: it costs a byte per element where Philox costs about thirty
passes, and a counter that lives on the device may have moved on by then.
"""

from __future__ import annotations

import math
from typing import Any

from xpconv.backend import Array, cast, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.memory import budget, masked
from xpconv.engines.portable.sums import blocks

_LIMB = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_SCRATCH = 192  # bytes per block of four elements: a dozen limbs of int64, the words, and what they select


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Four random words for each counter of four words; int64 arrays that broadcast, with values in 0..2**32-1."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LIMB) ^ c1 ^ k0, p1 & _LIMB, ((p0 >> 32) & _LIMB) ^ c3 ^ k1, p0 & _LIMB
        k0, k1 = (k0 + _WEYL[0]) & _LIMB, (k1 + _WEYL[1]) & _LIMB
    return c0, c1, c2, c3


def _run(x: Array, *, needs: Needs, rate: float, seed: int, counter: Any) -> tuple[Array, Any]:
    """y = x / (1 - rate) where the mask holds, else 0; any shape."""
    xp, n = namespace(x), math.prod(x.shape)
    flat, words = xp.reshape(x, (n,)), _limbs(counter, x)
    y = xp.empty((n,), dtype=x.dtype, device=x.device)
    mask = xp.empty((n,), dtype=xp.bool, device=x.device) if any(needs) else None
    for part in blocks(n, 4 * max(1, budget(x) // _SCRATCH)):
        keep = _kept(part, words, seed, math.floor(rate * 2**32))
        y[part] = masked(keep, flat[part]) * (1.0 / (1.0 - rate))
        if mask is not None:
            mask[part] = keep
    return xp.reshape(y, tuple(x.shape)), (mask, rate)


def _backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array, ...]:
    mask, rate = residuals
    xp = namespace(dy)
    flat = xp.reshape(dy, (math.prod(dy.shape),))
    dx = xp.empty_like(flat)
    for part in blocks(flat.shape[0], max(1, budget(dy) // _SCRATCH)):
        dx[part] = masked(mask[part], flat[part]) * (1.0 / (1.0 - rate))
    return (xp.reshape(dx, tuple(dy.shape)),)


def _kept(part: slice, counter: tuple[Array, ...], seed: int, threshold: int) -> Array:
    """Which of the elements start..stop-1 in row-major order stay; start is a multiple of 4."""
    low, high = counter
    xp = namespace(low)
    block = xp.arange(part.start // 4, -(-part.stop // 4), dtype=xp.int64, device=low.device)
    words = philox((block & _LIMB, block >> 32, low, high), (seed & _LIMB, seed >> 32))
    keep = xp.stack([word >= threshold for word in words], axis=-1)
    return xp.reshape(keep, (4 * block.shape[0],))[: part.stop - part.start]


def _limbs(counter: Any, x: Array) -> tuple[Array, ...]:
    """The low and high 32 bits of a counter, an int or a 0-d integer array on the device of x, as arrays (1,)."""
    xp = namespace(x)
    if isinstance(counter, int):
        low, high = counter & _LIMB, counter >> 32
        return tuple(xp.full((1,), limb, dtype=xp.int64, device=x.device) for limb in (low, high))
    whole = xp.reshape(cast(counter, xp.int64), (1,))
    return whole & _LIMB, (whole >> 32) & _LIMB


PRIMITIVES = {"dropout": Primitive(_run, _backward)}
