"""Average pooling on NumPy arrays, compiled: sliding and adaptive windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense, empty, place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.pool_plan import STREAMS, PoolPlan, adaptive_plan, averaging_plan
from xpconv.engines.numba.pooling import lanes_for, row_tasks, unfit
from xpconv.engines.numba.team import run
from xpconv.errors import dtype_name
from xpconv.window import Window

_WIDE = 256  # channels for which large windows are read cell by cell
_WIDTH = 1024  # of them, those that a task sums
_Residuals = tuple[PoolPlan, tuple[int, ...]]  # and the shape of x


def avg_pool(
    x: np.ndarray, *, needs: Needs, window: Window, count_include_pad: bool, divisor: float | None
) -> tuple[np.ndarray, _Residuals | None]:
    """y = the sum of each window by the divisor, or by its number of cells: (N, *size, C) -> (N, *out, C)."""
    plan = averaging_plan(window, count_include_pad, divisor)
    return _forward(x, plan, window.out), (plan, x.shape) if needs[0] else None


def adaptive_avg_pool(
    x: np.ndarray, *, needs: Needs, output_size: tuple[int, ...]
) -> tuple[np.ndarray, _Residuals | None]:
    """y = the mean of each window: (N, *size, C) -> (N, *output_size, C)."""
    plan = adaptive_plan(x.shape[1:-1], output_size)
    return _forward(x, plan, output_size), (plan, x.shape) if needs[0] else None


def _forward(x: np.ndarray, plan: PoolPlan, out: tuple[int, ...]) -> np.ndarray:
    x, dtype, channels = dense(x), dtype_name(x.dtype), x.shape[-1]
    lanes, whole = lanes_for(dtype, channels)
    y = empty((x.shape[0], *out, channels), x.dtype)
    if y.size:
        rows, width = x.shape[0] * plan.out_rows, -(-channels // lanes) * lanes
        kernel: tuple[Any, ...] = ("forward", dtype, lanes, whole, plan.run, *plan.fixed)
        if plan.wide and channels >= _WIDE:
            kernel, width = ("forward_wide", dtype, lanes, whole, STREAMS), min(width, _WIDTH)
        each, tasks, threads = row_tasks(rows, plan.out_row * width * plan.cells)
        words = (place(x), place(y), plan.address, channels, rows, each, width)
        run(address("avgpool", *kernel), tasks * -(-channels // width), *words, threads=threads)
    return y


def avg_pool_grad(residuals: _Residuals, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray]:
    """dx = dy by the divisor, at every cell of its window: (N, *out, C) -> (N, *size, C)."""
    (plan, shape), dy, dtype, channels = residuals, dense(dy), dtype_name(dy.dtype), dy.shape[-1]
    lanes, whole = lanes_for(dtype, channels)
    dx = empty(shape, dy.dtype)
    if dx.size:
        rows = shape[0] * plan.in_rows
        each, tasks, threads = row_tasks(rows, plan.in_row * -(-channels // lanes) * lanes * plan.meeting)
        words = (place(dx), place(dy), 0, 0, plan.address, channels, 0, rows, each)
        kernel = address("avgpool", "backward", dtype, lanes, whole, plan.meeting == 1, plan.back_run)
        run(kernel, tasks, *words, threads=threads)
    return (dx,)


def _declines(x: np.ndarray, *, divisor: float | None = None, **_: Any) -> str | None:
    if divisor is not None and not 1e-30 < abs(divisor) < 1e30:
        return f"takes divisors from 1e-30 to 1e30, not {divisor:g}"
    return unfit(x)


PRIMITIVES = {
    "avg_pool": Primitive(avg_pool, avg_pool_grad, _declines),
    "adaptive_avg_pool": Primitive(adaptive_avg_pool, avg_pool_grad, _declines),
}
