"""Max unpooling on NumPy arrays, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba.arrays import dense, empty, place
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.pooling import unfit
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.team import run, threads_for
from xpconv.errors import dtype_name
from xpconv.settings import current

_SCRATCH = 4  # bytes for each number that a task of the gradient goes to
_MOST = 32  # tasks that an image is cut into for want of scratch memory: each looks at all of its cells
_Sizes = tuple[int, ...]


def max_unpool(x: np.ndarray, indices: np.ndarray, *, needs: Needs, output_size: _Sizes) -> tuple[np.ndarray, Any]:
    """y[n, indices[n, i, c], c] = x[n, i, c], else 0: (N, *size, C) -> (N, *output_size, C)."""
    x, indices = dense(x), dense(indices)
    y = empty((x.shape[0], *output_size, x.shape[-1]), x.dtype)
    if y.size:
        each, tasks, threads = shared_out(x, y)
        words = place(x), place(indices), place(y), *_sizes(x, y), each
        run(address("unpool", "forward", dtype_name(x.dtype)), tasks, *words, threads=threads)
    return y, indices if any(needs) else None


def max_unpool_grad(indices: np.ndarray, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray, None]:
    """dx = dy at the target, 0 for a cell that a later one has overwritten: (N, *output_size, C) -> (N, *size, C)."""
    dy, dx = dense(dy), empty(indices.shape, dy.dtype)
    if dx.size:
        each, tasks, threads = shared_out(dx, dy, scratch=_SCRATCH)
        nbytes = _SCRATCH * each * dy.shape[-1]
        with borrowed(threads * nbytes) as scratch:
            words = place(dy), place(indices), place(dx), *_sizes(dx, dy), each, scratch, nbytes
            run(address("unpool", "backward", dtype_name(dy.dtype)), tasks, *words, threads=threads)
    return dx, None


def _sizes(x: np.ndarray, y: np.ndarray) -> tuple[int, ...]:
    return math.prod(x.shape[1:-1]), math.prod(y.shape[1:-1]), x.shape[-1]


def shared_out(x: np.ndarray, y: np.ndarray, scratch: int = 0) -> tuple[int, int, int]:
    """Targets of a task, how many tasks, and on how many threads: all of an image, unless there are too few of them.

    Or unless they take more than the workspace limit, with so many bytes of ``scratch`` for each of their numbers.
    """
    images, targets, threads = x.shape[0], math.prod(y.shape[1:-1]), threads_for(x.size + y.size)
    each = -(-targets // (-(-2 * threads // images) if threads > 1 and images < 2 * threads else 1))
    if scratch:
        fitting = current().workspace_limit // (threads * scratch * x.shape[-1])
        each = min(each, max(fitting, -(-targets // _MOST)))
    return each, images * -(-targets // each), threads


def _declines(x: np.ndarray, indices: np.ndarray, **_: Any) -> str | None:
    return unfit(x)


PRIMITIVES = {"max_unpool": Primitive(max_unpool, max_unpool_grad, _declines)}
