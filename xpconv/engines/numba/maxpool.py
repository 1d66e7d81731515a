"""Max pooling on NumPy arrays, compiled: sliding and adaptive windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import copied, dense, empty, place, place_of, streams
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.pool_plan import PoolPlan, adaptive_plan, sliding_plan
from xpconv.engines.numba.pooling import lanes_for, row_tasks, unfit
from xpconv.engines.numba.team import run
from xpconv.errors import dtype_name
from xpconv.window import Window


class _Winners(NamedTuple):
    """Residuals for ties='first': the code of the cell that won each window, pixels padded to whole vectors."""

    codes: np.ndarray
    plan: PoolPlan
    shape: tuple[int, ...]  # of x


class _Maxima(NamedTuple):
    """Residuals for ties='all': every cell of x that equals its y has won."""

    x: np.ndarray
    y: np.ndarray
    plan: PoolPlan


def max_pool(x: np.ndarray, *, needs: Needs, window: Window, ties: str, return_indices: bool) -> tuple[Any, Any]:
    """y = the largest real cell of each window, nan if one is: (N, *size, C) -> (N, *out, C)."""
    x, plan = dense(x), sliding_plan(window, return_indices)
    first = needs[0] and ties == "first"
    y, codes = _forward(x, plan, window.out, first or return_indices)
    residuals = None
    if needs[0]:
        residuals = _Winners(codes, plan, x.shape) if first else _Maxima(x, y, plan)
    if return_indices:
        return (y, copied(codes[:, : x.shape[-1]], np.int64).reshape(y.shape)), residuals
    return y, residuals


def adaptive_max_pool(x: np.ndarray, *, needs: Needs, output_size: tuple[int, ...]) -> tuple[Any, Any]:
    """y = the maximum of each window: (N, *size, C) -> (N, *output_size, C)."""
    x, plan = dense(x), adaptive_plan(x.shape[1:-1], output_size)
    y, codes = _forward(x, plan, output_size, needs[0])
    return y, _Winners(codes, plan, x.shape) if needs[0] else None


def _forward(x: np.ndarray, plan: PoolPlan, out: tuple[int, ...], keeps: bool) -> tuple[np.ndarray, Any]:
    """y, and the winners' codes if they are to be kept: (N · out, whole vectors)."""
    images, channels, dtype = x.shape[0], x.shape[-1], dtype_name(x.dtype)
    lanes, whole = lanes_for(dtype, channels)
    row, rows = -(-channels // lanes) * lanes, images * plan.out_rows
    y = empty((images, *out, channels), x.dtype)
    codes = empty((rows * plan.out_row, row), plan.code_dtype) if keeps else None
    if y.size:
        each, tasks, threads = row_tasks(rows, plan.out_row * row * plan.cells)
        codes_as, past = plan.code_dtype if keeps else "", whole and streams(x, y, lanes)
        kernel = address("maxpool", "forward", dtype, codes_as, lanes, whole, *plan.most, plan.alike, past)
        words = (place(x), place(y), place_of(codes), plan.address, channels, row, rows, each)
        run(kernel, tasks, *words, threads=threads)
    return y, codes


def max_pool_grad(residuals: _Winners | _Maxima, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray]:
    """dx = dy at the cells that won: (N, *out, C) -> (N, *size, C)."""
    dy, plan, dtype, channels = dense(dy), residuals.plan, dtype_name(dy.dtype), dy.shape[-1]
    lanes, whole = lanes_for(dtype, channels)
    if isinstance(residuals, _Winners):
        dx, x = empty(residuals.shape, dy.dtype), 0
        kept, row = residuals.codes, residuals.codes.shape[-1]
        kernel: tuple[Any, ...] = ("backward_to_first", dtype, plan.code_dtype)
    else:
        dx, x = empty(residuals.x.shape, dy.dtype), place(residuals.x)
        kept, row = residuals.y, channels
        kernel = ("backward_to_all", dtype)
    if dx.size:
        rows = dx.shape[0] * plan.in_rows
        each, tasks, threads = row_tasks(rows, plan.in_row * -(-channels // lanes) * lanes * plan.meeting)
        words = (place(dx), place(dy), place(kept), x, plan.address, channels, row, rows, each)
        run(address("maxpool", *kernel, lanes, whole, plan.meeting == 1, plan.back_run), tasks, *words, threads=threads)
    return (dx,)


def _declines(x: np.ndarray, **_: Any) -> str | None:
    return unfit(x)


PRIMITIVES = {
    "max_pool": Primitive(max_pool, max_pool_grad, _declines),
    "adaptive_max_pool": Primitive(adaptive_max_pool, max_pool_grad, _declines),
}
