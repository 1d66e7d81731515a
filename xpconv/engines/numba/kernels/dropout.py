"""Dropout by Philox-4x32-10, as `portable/dropout.py` states it: four random words for each block of four numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types, uint64

from xpconv.engines.numba.kernels.mathematics import real
from xpconv.engines.numba.kernels.memory import number_type, pointers

_ROUNDS = 10


@njit
def _philox(block, low, high, k0, k1):
    """The four words of a block, whose counter is (block, low and high limbs of the step)."""
    c0, c1, c2, c3 = uint64(block) & uint64(0xFFFFFFFF), uint64(block) >> uint64(32), low, high
    for _ in range(_ROUNDS):
        p0, p1 = c0 * uint64(0xD2511F53), c2 * uint64(0xCD9E8D57)
        c0, c1 = (p1 >> uint64(32)) ^ c1 ^ k0, p1 & uint64(0xFFFFFFFF)
        c2, c3 = (p0 >> uint64(32)) ^ c3 ^ k1, p0 & uint64(0xFFFFFFFF)
        k0 = (k0 + uint64(0x9E3779B9)) & uint64(0xFFFFFFFF)
        k1 = (k1 + uint64(0xBB67AE85)) & uint64(0xFFFFFFFF)
    return c0, c1, c2, c3


def forward(dtype: str, keeps: bool) -> Callable[..., Any]:
    """y of a run of blocks, and the mask if it is kept.

    Arguments: x, y, mask, count, blocks in a run, the seed's low and high limb, the step's, the threshold, and the
    scale as a double.
    """
    number, at, flags = number_type(dtype), pointers(number_type(dtype)), pointers(types.uint8)

    def kernel(args, task, slot):
        x, y, mask, count, run = at(args[0]), at(args[1]), flags(args[2]), args[3], args[4]
        k0, k1, low, high = uint64(args[5]), uint64(args[6]), uint64(args[7]), uint64(args[8])
        threshold, scale, zero = uint64(args[9]), number(real(args[10])), number(0.0)
        for block in range(task * run, min((task + 1) * run, (count + 3) // 4)):
            words = _philox(block, low, high, k0, k1)
            for j in range(min(4, count - 4 * block)):
                i = 4 * block + j
                stays = words[j] >= threshold
                y[i] = x[i] * scale if stays else zero
                if keeps:
                    mask[i] = stays

    return kernel


def backward(dtype: str) -> Callable[..., Any]:
    """dx of a run of numbers. Arguments: mask, dy, dx, count, numbers in a run, and the scale as a double."""
    number, at, flags = number_type(dtype), pointers(number_type(dtype)), pointers(types.uint8)

    def kernel(args, task, slot):
        mask, dy, dx, scale = flags(args[0]), at(args[1]), at(args[2]), number(real(args[5]))
        for i in range(task * args[4], min((task + 1) * args[4], args[3])):
            dx[i] = dy[i] * scale if mask[i] != 0 else number(0.0)

    return kernel
