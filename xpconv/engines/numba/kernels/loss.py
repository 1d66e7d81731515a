"""Cross-entropy of integer labels under the softmax of logits, row by row; and losses of pairs of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.engines.numba.kernels import mathematics
from xpconv.engines.numba.kernels.lanes import Lanes
from xpconv.engines.numba.kernels.mathematics import log_one_plus, real, sigmoid, unary
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.softmax import logarithm_of, row_tools, total_of
from xpconv.engines.numba.kernels.sums import BLOCK, ends
from xpconv.engines.numba.kernels.vectors import below, choose, vectors


def _reducer(dtype: str) -> Callable[..., Any]:
    """``total(losses, count)``, in blocks and in double precision."""

    @njit
    def total(losses, count):
        whole = 0.0
        for first in range(0, count, BLOCK):
            block = 0.0
            for r in range(first, min(first + BLOCK, count)):
                block += losses[r]
            whole += block
        return whole

    return total


def reduce(dtype: str) -> Callable[..., Any]:
    """The sum of all losses times a factor. Arguments: losses, their number, the factor as a double, result."""
    number, at, total = number_type(dtype), pointers(number_type(dtype)), _reducer(dtype)

    def kernel(args, task, slot):
        at(args[3])[0] = number(total(at(args[0]), args[1]) * real(args[2]))

    return kernel


def cross_entropy(dtype: str, lanes: int) -> Callable[..., Any]:
    """The losses of a run of rows, and what their gradients need.

    Arguments: logits, labels, rows, classes, rows in a run, the label smoothing as a double, then (rows,) each: losses,
    peaks, sums of exponentials; a factor for the sum of all losses as a double, and its result, or 0, which is written
    here if one run has all rows. An unknown label makes its loss nan.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, _ = ends(dtype, lanes, True)
    peak, mass = row_tools(dtype, lanes, False)
    log, reduced = logarithm_of(dtype, lanes), _reducer(dtype)

    def kernel(args, task, slot):
        z, labels, count, n, run, smoothing = at(args[0]), words(args[1]), args[2], args[3], args[4], real(args[5])
        losses, peaks, masses = at(args[6]), at(args[7]), at(args[8])
        for r in range(task * run, min((task + 1) * run, count)):
            start, label = r * n, labels[r]
            highest = peak(z, start, n)
            total = mass(z, start, n, highest, z)
            peaks[r], masses[r] = highest, total
            if label < 0 or label >= n:
                losses[r] = math.nan
                continue
            loss = log(total) - number(1.0 - smoothing) * (z[start + label] - highest)
            if smoothing != 0.0:
                rest = splat(number(0.0))
                for first in range(0, n, BLOCK * lanes):
                    block = splat(number(0.0))
                    for c in range(first, min(first + BLOCK * lanes, n), lanes):
                        block = block + get(z, start + c, n - c)
                    rest = rest + block
                loss -= number(smoothing / n) * (total_of(rest) - number(n) * highest)
            losses[r] = loss
        if args[10] != 0 and count <= run:
            at(args[10])[0] = number(reduced(losses, count) * real(args[9]))

    return kernel


def cross_entropy_back(dtype: str, lanes: int) -> Callable[..., Any]:
    """(softmax(logits) - target) · share of a run of rows.

    Arguments: logits, labels, rows, classes, rows in a run, the label smoothing as a double, peaks, sums of
    exponentials, dy, how far apart its numbers are (0: there is one), a factor for it as a double, and the gradient.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    get, put = ends(dtype, lanes, True)
    exp = unary(mathematics.exp, dtype, lanes)

    def kernel(args, task, slot):
        z, labels, count, n, run, smoothing = at(args[0]), words(args[1]), args[2], args[3], args[4], real(args[5])
        peaks, masses, dy, step = at(args[6]), at(args[7]), at(args[8]), args[9]
        factor, out = number(real(args[10])), at(args[11])
        base = splat(number(smoothing / n))
        for r in range(task * run, min((task + 1) * run, count)):
            start, label = r * n, labels[r]
            known = label >= 0 and label < n
            share = number(math.nan)
            if known:
                share = dy[r * step] * factor
            top, part, all_of = splat(peaks[r]), splat(number(1.0) / masses[r]), splat(share)
            for c in range(0, n, lanes):
                put(out, start + c, (exp(get(z, start + c, n - c) - top) * part - base) * all_of, n - c)
            if known:
                out[start + label] -= number(1.0 - smoothing) * share

    return kernel


# Of a number and its target: the loss, and its derivatives by both.
_PAIRED: dict[str, tuple[Callable[[Lanes, Lanes], Lanes], ...]] = {
    "mse": (lambda y, t: (y - t) * (y - t), lambda y, t: 2.0 * (y - t), lambda y, t: 2.0 * (t - y)),
    "binary_cross_entropy_with_logits": (
        lambda z, t: z.at_least(0.0) - z * t + log_one_plus(mathematics.exp(-abs(z))),
        lambda z, t: sigmoid(z) - t,
        lambda z, t: -z,
    ),
}


def _functions(name: str, dtype: str, lanes: int) -> list[Callable[..., Any]]:
    """What `_PAIRED` has of a loss, as functions (vector, vector) -> vector."""
    return [mathematics.binary(emit, dtype, lanes) for emit in _PAIRED[name]]


def paired(name: str, dtype: str, lanes: int) -> Callable[..., Any]:
    """The losses of a run of pairs, or their sum, in blocks.

    Arguments: y, targets, their number, numbers in a run, losses or 0, then what is made of them if that is 0: sums,
    one for each run; a factor for the sum of all as a double, and its result, which is written here if one run has all.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    load, store, load_some, store_some, _ = vectors(dtype, lanes)
    value, _, _ = _functions(name, dtype, lanes)

    @njit
    def total_of_run(y, target, first, last):
        total, zero = splat(number(0)), splat(number(0))
        for start in range(first, last, BLOCK * lanes):
            stop, block = min(start + BLOCK * lanes, last), zero
            whole = start + (stop - start) // lanes * lanes
            for i in range(start, whole, lanes):
                block = block + value(load(y, i), load(target, i))
            if whole < stop:
                left = stop - whole
                loss = value(load_some(y, whole, left), load_some(target, whole, left))
                block = block + choose(below(loss, left), loss, zero)
            total = total + block
        return total_of(total)

    @njit
    def each_of_run(y, target, losses, first, last):
        whole = first + (last - first) // lanes * lanes
        for i in range(first, whole, lanes):
            store(losses, i, value(load(y, i), load(target, i)))
        if whole < last:
            left = last - whole
            store_some(losses, whole, value(load_some(y, whole, left), load_some(target, whole, left)), left)

    def kernel(args, task, slot):
        y, target, count, run = at(args[0]), at(args[1]), args[2], args[3]
        first, last = task * run, min((task + 1) * run, count)
        if args[4] != 0:
            each_of_run(y, target, at(args[4]), first, last)
            return
        total = total_of_run(y, target, first, last)
        if args[5] != 0:
            at(args[5])[task] = total
        else:
            at(args[7])[0] = number(total * real(args[6]))

    return kernel


def paired_back(name: str, dtype: str, lanes: int) -> Callable[..., Any]:
    """The gradients of a run of pairs.

    Arguments: y, targets, their number, numbers in a run, dy, how far apart its numbers are (0: there is one), a factor
    for it as a double, and the gradients by y and by the targets, each perhaps 0.
    """
    number, at, splat = number_type(dtype), pointers(number_type(dtype)), vectors(dtype, lanes).splat
    load, store, load_some, store_some, _ = vectors(dtype, lanes)
    _, *slopes = _functions(name, dtype, lanes)
    by_y, by_target = slopes

    def kernel(args, task, slot):
        y, target, count, run, dy, step = at(args[0]), at(args[1]), args[2], args[3], at(args[4]), args[5]
        factor, dys, dtargets = number(real(args[6])), at(args[7]), at(args[8])
        first, last = task * run, min((task + 1) * run, count)
        whole = first + (last - first) // lanes * lanes
        share = splat(dy[0] * factor)
        for i in range(first, whole, lanes):
            a, b = load(y, i), load(target, i)
            if step != 0:
                share = load(dy, i)
            if args[7] != 0:
                store(dys, i, by_y(a, b) * share)
            if args[8] != 0:
                store(dtargets, i, by_target(a, b) * share)
        if whole < last:
            left = last - whole
            a, b = load_some(y, whole, left), load_some(target, whole, left)
            if step != 0:
                share = load_some(dy, whole, left)
            if args[7] != 0:
                store_some(dys, whole, by_y(a, b) * share, left)
            if args[8] != 0:
                store_some(dtargets, whole, by_target(a, b) * share, left)

    return kernel
