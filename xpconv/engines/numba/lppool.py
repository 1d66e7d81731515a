"""Lp pooling on NumPy arrays, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense, empty, place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.pool_plan import PoolPlan, averaging_plan
from xpconv.engines.numba.pooling import lanes_for, row_tasks, unfit
from xpconv.engines.numba.team import run
from xpconv.errors import dtype_name
from xpconv.window import Window

_POWERS = {1.0: "absolute", 2.0: "square"}  # any other takes an exponential and a logarithm
_WORK = {"absolute": 1, "square": 2, "power": 40}  # of a cell, in numbers that are moved
_HIGHEST = 64


def lp_pool(x: np.ndarray, *, needs: Needs, window: Window, p: float) -> tuple[np.ndarray, Any]:
    """y = (sum of |x|^p over each window)^(1/p): (N, *size, C) -> (N, *out, C)."""
    x, plan, power = dense(x), averaging_plan(window, False, p), _POWERS.get(p, "power")  # p in the divisors' place
    dtype, channels = dtype_name(x.dtype), x.shape[-1]
    lanes, whole = _lanes(power, dtype, channels)
    y = empty((x.shape[0], *window.out, channels), x.dtype)
    if y.size:
        rows, width = x.shape[0] * plan.out_rows, -(-channels // lanes) * lanes
        each, tasks, threads = row_tasks(rows, plan.out_row * width * plan.cells * _WORK[power])
        words = (place(x), place(y), plan.address, channels, rows, each)
        kernel = address("lppool", "forward", power, dtype, lanes, whole, plan.run, *plan.fixed)
        run(kernel, tasks, *words, threads=threads)
    return y, (x, y, plan, power) if any(needs) else None


def lp_pool_grad(
    residuals: tuple[np.ndarray, np.ndarray, PoolPlan, str], dy: np.ndarray, needs: Needs
) -> tuple[np.ndarray]:
    """dx = dy sign(x) (|x| / y)^(p - 1), and 0 where x or y is: (N, *out, C) -> (N, *size, C)."""
    x, y, plan, power = residuals
    dy, dx, dtype, channels = dense(dy), empty(x.shape, x.dtype), dtype_name(x.dtype), x.shape[-1]
    lanes, whole = _lanes(power, dtype, channels)
    if dx.size:
        rows = x.shape[0] * plan.in_rows
        work = plan.in_row * -(-channels // lanes) * lanes * plan.meeting * _WORK[power]
        each, tasks, threads = row_tasks(rows, work)
        words = (place(dx), place(dy), place(y), place(x), plan.address, channels, channels, rows, each)
        kernel = address("lppool", "backward", power, dtype, lanes, whole, plan.meeting == 1, plan.back_run)
        run(kernel, tasks, *words, threads=threads)
    return (dx,)


def _lanes(power: str, dtype: str, channels: int) -> tuple[int, bool]:
    """As `lanes_for`; powers, which are computed in double precision, have no registers for several vectors."""
    if power != "power":
        return lanes_for(dtype, channels)
    lanes = machine().lanes(dtype)
    return lanes, channels % lanes == 0


def _declines(x: np.ndarray, *, p: float, **_: Any) -> str | None:
    # Cells are scaled to below 2, so that a term is below 2^p, which float32 and the sum of a large window must hold.
    return f"powers above {_HIGHEST} overflow, scaled by a power of two" if p > _HIGHEST else unfit(x)


PRIMITIVES = {"lp_pool": Primitive(lp_pool, lp_pool_grad, _declines)}
