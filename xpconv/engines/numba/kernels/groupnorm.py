"""Normalisation of the groups of channels of each sample, by the same slabs and rows as batch normalisation.

A task has some whole samples, and reads each twice, the second time from the end, where the first one left the cache
full; or a slab of one, where samples are too few to be shared out: then sums, what follows from them for each group,
and the pass over rows are jobs of their own. The sums are the same either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit, types

from xpconv.engines.numba.fields import APPLY, SAMPLE_ROWS, SETTLE, SUM, Samples
from xpconv.engines.numba.kernels.mathematics import real
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.norm import DRIFT, MEAN, RSTD, SCALE, SHIFT, merger, row_normaliser, slab_moments
from xpconv.engines.numba.kernels.norm_back import FACTOR, OFFSET, PLAIN, WEIGHTED, row_gradient, slab_gradients
from xpconv.engines.numba.kernels.sums import BLOCK, adder, doubles
from xpconv.engines.numba.kernels.vectors import vectors

(X, DY, OUT, SAMPLES, ROWS, CHANNELS, EACH, SLAB, SLABS, SHARE, NEAR, PIECES, STEPS, PARTS, STEP, ROOM) = range(16)
(TABLE, SETTLED, GAMMA, BETA, EPS) = range(16, len(Samples._fields))

_at_double = pointers(types.float64)


@njit
def _added(p, first, last):
    """The sum of some doubles, in blocks."""
    total = 0.0
    for start in range(first, last, BLOCK):
        block = 0.0
        for i in range(start, min(start + BLOCK, last)):
            block += p[i]
        total += block
    return total


def _by_sample(dtype: str, sums: Any, settle: Any, apply: Any) -> Callable[..., Any]:
    """The kernel that does what `Samples` says with three functions of a sample.

    ``sums(args, sample, first, last, parts)`` for a slab's rows, ``settle(args, sample, parts, room)``, and
    ``apply(args, sample, first, last)`` for a slab's rows; ``parts`` and ``room`` are addresses.
    """
    nbytes = number_type(dtype).bitwidth // 8

    @njit
    def one(args, sample, holder, slot, first, last):
        rows, slab, steps, line = args[ROWS], args[SLAB], args[STEPS], args[STEP] * nbytes
        parts = args[PARTS] + holder * args[SLABS] * line
        if steps & SUM:
            for s in range(first, last):
                sums(args, sample, s * slab, min((s + 1) * slab, rows), parts + s * line)
        if steps & SETTLE:
            settle(args, sample, parts, args[ROOM] + slot * 16 * args[CHANNELS])
        if steps & APPLY:
            for s in range(last - 1, first - 1, -1):
                apply(args, sample, s * slab, min((s + 1) * slab, rows))

    def kernel(args, task, slot):
        samples, pieces, share = args[SAMPLES], args[PIECES], args[SHARE]
        if args[STEPS] == APPLY:  # what was read last comes first
            task = samples * pieces - 1 - task
        first, last = (0, args[SLABS]) if pieces == 1 else (task % pieces, task % pieces + 1)
        start = task // pieces * share
        alone = args[STEPS] & SUM and args[STEPS] & SETTLE
        for sample in range(start, min(start + share, samples)):
            one(args, sample, slot if alone else sample, slot, first, last)

    return kernel


def _at_sample(dtype: str) -> Callable[..., Any]:
    """``at_sample(args, which, sample, rows)``: a pointer to an array's part of a sample, so many rows of channels."""
    at, nbytes = pointers(number_type(dtype)), number_type(dtype).bitwidth // 8

    @njit
    def at_sample(args, which, sample, rows):
        return at(args[which] + sample * rows * args[CHANNELS] * nbytes)

    return at_sample


def _statistics(dtype: str, wide: int) -> Callable[..., Any]:
    """``statistics(args, sample, parts, room)``: a sample's table, from its slabs' moments."""
    number, at = number_type(dtype), pointers(number_type(dtype))
    _, _, load, store, splat = vectors("float64", wide)
    merged, at_sample, (get, put) = merger(dtype, wide), _at_sample(dtype), doubles(dtype, wide)

    @njit
    def statistics(args, sample, parts_at, room_at):
        rows, n, each, slab, slabs, step = args[ROWS], args[CHANNELS], args[EACH], args[SLAB], args[SLABS], args[STEP]
        parts, room, table = at(parts_at), _at_double(room_at), at_sample(args, TABLE, sample, SAMPLE_ROWS)
        share = 1.0 / (rows * each)
        for c in range(0, n, wide):
            store(room, c, merged(parts, slabs, step, rows, n, slab, c, splat(0.0))[0], n - c)
        for g in range(0, n, each):
            mean = number(_added(room, g, g + each) * share)
            for c in range(g, g + each):
                table[MEAN * n + c] = mean
        for c in range(0, n, wide):
            about = get(table, MEAN * n + c, n - c)
            total, squares = merged(parts, slabs, step, rows, n, slab, c, about)
            store(room, c, total, n - c)
            store(room, n + c, squares, n - c)
        for g in range(0, n, each):
            drift = _added(room, g, g + each) * share
            var = _added(room, n + g, n + g + each) * share - drift * drift
            if var < 0.0:
                var = 0.0
            rstd = 1.0 / math.sqrt(var + real(args[EPS]))
            for c in range(g, g + each):
                room[c], room[n + c] = drift, rstd
        for c in range(0, n, wide):
            left = n - c
            drift, rstd = load(room, c, left), load(room, n + c, left)
            scale = rstd * get(at(args[GAMMA]), c, left) if args[GAMMA] != 0 else rstd
            shift = get(at(args[BETA]), c, left) if args[BETA] != 0 else splat(0.0)
            put(table, DRIFT * n + c, drift, left)
            put(table, RSTD * n + c, rstd, left)
            put(table, SCALE * n + c, scale, left)
            put(table, SHIFT * n + c, shift - drift * scale, left)

    return statistics


def forward(dtype: str, lanes: int, ragged: bool, wide: int, stream: bool) -> Callable[..., Any]:
    """y, and the tables of `norm` for each sample."""
    at, at_sample = pointers(number_type(dtype)), _at_sample(dtype)
    moments, normalised = slab_moments(dtype, lanes, ragged), row_normaliser(dtype, lanes, ragged, None, False, stream)

    @njit
    def sums(args, sample, first, last, parts):
        moments(at_sample(args, X, sample, args[ROWS]), first, last, args[CHANNELS], at(parts), args[NEAR] != 0)

    @njit
    def apply(args, sample, first, last):
        x, y = at_sample(args, X, sample, args[ROWS]), at_sample(args, OUT, sample, args[ROWS])
        table = at_sample(args, TABLE, sample, SAMPLE_ROWS)
        normalised(x, y, x, first, last, args[CHANNELS], table, args[NEAR] != 0)

    return _by_sample(dtype, sums, _statistics(dtype, wide), apply)


def _settle_gradients(dtype: str, wide: int) -> Callable[..., Any]:
    """``settle(args, sample, parts, room)``: a sample's Σ dy and Σ dy x̂, and what dx is made of.

    With g = dy · gamma and the means over a group: dx = rstd (g - mean(g) - x̂ mean(g x̂)).
    """
    number, at, at_sample = number_type(dtype), pointers(number_type(dtype)), _at_sample(dtype)
    splat, store = vectors("float64", wide).splat, vectors("float64", wide).store_some
    add_up, (get, put) = adder(dtype, wide), doubles(dtype, wide)

    @njit
    def settle(args, sample, parts_at, room_at):
        n, each, slabs, step, gamma = args[CHANNELS], args[EACH], args[SLABS], args[STEP], args[GAMMA]
        parts, room, table = at(parts_at), _at_double(room_at), at_sample(args, TABLE, sample, SAMPLE_ROWS)
        out = at_sample(args, SETTLED, sample, SAMPLE_ROWS)
        for c in range(0, n, wide):
            left = n - c
            plain = add_up(parts, c, step, slabs, left)
            weighted = add_up(parts, n + c, step, slabs, left) - get(table, DRIFT * n + c, left) * plain
            weighted = get(table, RSTD * n + c, left) * weighted
            put(out, PLAIN * n + c, plain, left)
            put(out, WEIGHTED * n + c, weighted, left)
            scale = get(at(gamma), c, left) if gamma != 0 else splat(1.0)
            store(room, c, scale * plain, left)
            store(room, n + c, scale * weighted, left)
        for g in range(0, n, each):
            rstd = float(table[RSTD * n + g])
            share = -rstd / (args[ROWS] * each)
            factor = rstd * share * _added(room, n + g, n + g + each)
            offset = share * _added(room, g, g + each) - float(table[DRIFT * n + g]) * factor
            for c in range(g, g + each):
                out[FACTOR * n + c], out[OFFSET * n + c] = number(factor), number(offset)

    return settle


def backward(dtype: str, lanes: int, ragged: bool, wide: int, stream: bool) -> Callable[..., Any]:
    """dx, and what `_settle_gradients` leaves for each sample."""
    at, at_sample = pointers(number_type(dtype)), _at_sample(dtype)
    of_slab = slab_gradients(dtype, lanes, ragged, None, False)
    gradient = row_gradient(dtype, lanes, ragged, None, False, stream)

    @njit
    def sums(args, sample, first, last, parts):
        x, dy = at_sample(args, X, sample, args[ROWS]), at_sample(args, DY, sample, args[ROWS])
        table = at_sample(args, TABLE, sample, SAMPLE_ROWS)
        of_slab(x, dy, first, last, args[CHANNELS], table, at(parts), dy, dy)

    @njit
    def apply(args, sample, first, last):
        x, dy, dx = (
            at_sample(args, X, sample, args[ROWS]),
            at_sample(args, DY, sample, args[ROWS]),
            at_sample(args, OUT, sample, args[ROWS]),
        )
        table, settled = at_sample(args, TABLE, sample, SAMPLE_ROWS), at_sample(args, SETTLED, sample, SAMPLE_ROWS)
        gradient(x, dy, dx, first, last, args[CHANNELS], table, settled)

    return _by_sample(dtype, sums, _settle_gradients(dtype, wide), apply)
