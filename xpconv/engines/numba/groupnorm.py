"""Group and instance normalisation on NumPy arrays, compiled: a sample is read twice, and written, by one thread.

The second time it comes from the cache, if it fits one. Where there are fewer samples than threads, their slabs are
shared out instead (`kernels/groupnorm.py`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from xpconv.dispatch import Needs, Primitive
from xpconv.engines.numba import rownorm
from xpconv.engines.numba.activation import word
from xpconv.engines.numba.arrays import dense, empty, place, place_of, streams, unsupported, zeros
from xpconv.engines.numba.compiled import address
from xpconv.engines.numba.fields import APPLY, SAMPLE_ROWS, SETTLE, SUM, Samples
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.scratch import borrowed
from xpconv.engines.numba.sums import Slabs, settled, vector
from xpconv.engines.numba.team import run, threads_for
from xpconv.settings import current

_MOMENTS, _GRADIENTS = 5, 4  # rows of a slab's sums
_RUN = 2**15  # numbers of a task, as far as samples are smaller
_NEAR = 2**20  # bytes of a sample that a thread finds in its cache when it comes back to them
_AT_WORK = 64  # samples that sums are kept of at a time


class _Kept(NamedTuple):
    """Residuals."""

    x: np.ndarray
    gamma: np.ndarray | None
    table: np.ndarray
    each: int
    parameters: tuple[int, ...]  # shape of gamma and beta


def _sizes(
    x: np.ndarray, each: int, kept: int, dy: int, out: int, table: int, settled: int, gamma: int, beta: int, eps: int
) -> Samples:
    """How x is cut, by the shape alone: slabs of a 64th of all rows, but not much shorter than 256 rows.

    ``kept`` rows of sums for each slab.
    """
    samples, rows, n = x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]
    step = kept * n + 16  # as in `Slabs`
    slab = min(2048, max(-(-samples * rows // 64), min(256, max(-(-rows // 2), 64))) + 31 & -32)
    most = current().workspace_limit // (step * x.itemsize * min(samples, _AT_WORK))
    slab = max(slab, -(-rows // max(most, 1)))
    near = int(rows * n * x.itemsize <= _NEAR)
    share = max(1, _RUN // (rows * n))
    cut = samples, rows, n, each, slab, -(-rows // slab), share, near, 1
    return Samples(place(x), dy, out, *cut, 0, 0, step, 0, table, settled, gamma, beta, eps)


def _work(kernel: int, x: np.ndarray, sizes: Samples, apply: bool = True) -> None:
    """Do all steps of each sample in one task, or the steps one after the other by slabs."""
    tasks, steps = -(-sizes.samples // sizes.share), SUM | SETTLE | APPLY * apply
    threads = min(threads_for(x.size), _AT_WORK)
    busy = tasks / (-(-tasks // threads) * threads)  # the share of the threads that whole samples keep at work
    whole = busy >= 0.8 or sizes.samples > _AT_WORK or sizes.slabs == 1
    holders = min(threads, tasks) if whole else sizes.samples
    nbytes = holders * sizes.slabs * sizes.step * x.itemsize + 63 & -64
    with borrowed(nbytes + threads * 16 * sizes.channels) as parts:
        sizes = sizes._replace(parts=parts, room=parts + nbytes, steps=steps)
        if whole:
            run(kernel, tasks, *sizes, threads=threads)
            return
        by_slab = sizes._replace(share=1, pieces=sizes.slabs)
        for step in (SUM, SETTLE, APPLY):
            now = (sizes._replace(share=1) if step == SETTLE else by_slab)._replace(steps=step)
            if step & steps:
                run(kernel, now.samples * now.pieces, *now, threads=threads)


def _forward(
    x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None, needs: Needs, eps: float, each: int
) -> tuple[np.ndarray, Any]:
    """y = x̂ · gamma + beta, by the mean and variance of each sample's groups of so many channels."""
    if x.ndim == 2:
        return rownorm.normalise(x, (x.size // max(each, 1), each), gamma, beta, needs, eps)
    x, gamma, beta = dense(x), *(None if v is None else dense(v) for v in (gamma, beta))
    given = next((v.shape for v in (gamma, beta) if v is not None), ())
    y, table = empty(x.shape, x.dtype), np.empty((x.shape[0], SAMPLE_ROWS, x.shape[-1]), dtype=x.dtype)
    if x.size:
        kind = vector(x)
        kernel = address("groupnorm", "forward", *kind, machine().lanes("float64"), streams(x, y, kind.lanes))
        places = place(table), 0, place_of(gamma), place_of(beta), word(eps)
        _work(kernel, x, _sizes(x, each, _MOMENTS, 0, place(y), *places))
    return y, _Kept(x, gamma, table, each, given) if any(needs) else None


def _backward(kept: Any, dy: np.ndarray, needs: Needs) -> tuple[np.ndarray | None, ...]:
    """dx = rstd (g - mean(g) - x̂ mean(g x̂)) with g = dy · gamma; dgamma = Σ dy x̂, dbeta = Σ dy."""
    if isinstance(kept, rownorm.Kept):
        return rownorm.gradients(kept, dy, needs)
    x, dy, n, samples = kept.x, dense(dy), kept.x.shape[-1], kept.x.shape[0]
    dx = empty(x.shape, x.dtype) if needs[0] else None
    both = zeros((2, n), x.dtype)  # of beta and gamma
    if x.size:
        kind = vector(x)
        past = dx is not None and streams(x, dx, kind.lanes)
        kernel = address("groupnorm", "backward", *kind, machine().lanes("float64"), past)
        with borrowed(samples * SAMPLE_ROWS * n * x.itemsize) as sums:
            places = place(kept.table), sums, place_of(kept.gamma), 0, 0
            sizes = _sizes(x, kept.each, _GRADIENTS, place(dy), place_of(dx), *places)
            _work(kernel, x, sizes, apply=needs[0])
            if any(needs[1:]):
                slabs = Slabs(samples, 2 * n, 1, samples, SAMPLE_ROWS * n, 0)
                settled("sums", "settle", x, slabs, sums, 2 * n, place(both))
    dbeta, dgamma = both
    others = zip((dgamma, dbeta), needs[1:], strict=True)
    return dx, *(v.reshape(kept.parameters) if need else None for v, need in others)


def _instance_norm(x: np.ndarray, gamma: Any, beta: Any, *, needs: Needs, eps: float) -> tuple[np.ndarray, Any]:
    return _forward(x, gamma, beta, needs, eps, 1)


def _group_norm(
    x: np.ndarray, gamma: Any, beta: Any, *, needs: Needs, num_groups: int, eps: float
) -> tuple[np.ndarray, Any]:
    return _forward(x, gamma, beta, needs, eps, x.shape[-1] // num_groups)


def _declines(*arrays: Any, **_: Any) -> str | None:
    return unsupported(*arrays)


PRIMITIVES = {
    "instance_norm": Primitive(_instance_norm, _backward, _declines),
    "group_norm": Primitive(_group_norm, _backward, _declines),
}
