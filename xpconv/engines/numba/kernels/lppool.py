"""Lp pooling: roots of sums of powers over windows, and back.

Cells are taken relative to a power of two near their window's largest, so that no power up to 64 overflows or vanishes.
Other powers than the first and second are computed in double precision, as exponentials of logarithms. A plan has p
where that of an average pool has the divisors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.lanes import Lanes
from xpconv.engines.numba.kernels.mathematics import exp, log, unary
from xpconv.engines.numba.kernels.memory import number_type, pointers, words
from xpconv.engines.numba.kernels.pool import access, gather, helper, known, merger, of_windows
from xpconv.engines.numba.kernels.vectors import VectorType, choose, spread, vectors


def _inverse(peak: Lanes) -> Lanes:
    """2^-n with 2^n <= peak < 2^(n + 1), as far as both are normal numbers."""
    b, f, kind = peak.builder, peak.format, peak.integers()
    n = b.lshr(b.bitcast(peak.value, kind), peak.of(kind, f.fraction))
    for sign, bound in (("<", 1), (">", 2 * f.bias - 1)):
        limit = peak.of(kind, bound)
        n = b.select(b.icmp_signed(sign, n, limit), limit, n)
    return Lanes(b, b.bitcast(b.shl(b.sub(peak.of(kind, 2 * f.bias), n), peak.of(kind, f.fraction)), peak.kind))


def _power(x: Lanes, p: Any) -> Lanes:
    """x^p of x >= 0, for a double p, also a negative one, and for 0, infinity and nan as if it were positive."""
    b, count = x.builder, x.kind.count
    wide = ir.VectorType(ir.DoubleType(), count)
    value = Lanes(b, b.fpext(x.value, wide)) if wide != x.kind else x
    value = exp(Lanes(b, spread(b, p, count)) * log(value))
    value = Lanes(b, b.fptrunc(value.value, x.kind)) if wide != x.kind else value
    value = x.compare(">", 0.0).choose(value, x, x)
    return x.compare("<", math.inf).choose(value, x, x)


def _sign(x: Lanes) -> Lanes:
    return x.compare(">", 0.0).choose(1.0, x.compare("<", 0.0).choose(-1.0, x, x), x)


def _added(b: Any, p: Any, number: float) -> Any:
    return b.fadd(p, ir.Constant(ir.DoubleType(), number))


# The sum of a cell's power and others, (cell, inverse, sum, p); the root of a sum, (sum, p); and a cell's share of dy,
# (cell, y, p): of p = 1 the sign of the cell, whose quotient may vanish.
_TERMS: dict[str, Callable[..., Lanes]] = {
    "absolute": lambda x, by, part, p: part + abs(x),
    "square": lambda x, by, part, p: (x * by).times_plus(x * by, part),
    "power": lambda x, by, part, p: part + _power(abs(x * by), p),
}
_ROOTS: dict[str, Callable[..., Lanes]] = {
    "absolute": lambda total, p: total,
    "square": lambda total, p: total.root(),
    "power": lambda total, p: _power(total, total.builder.fdiv(ir.Constant(ir.DoubleType(), 1.0), p)),
}
_SHARES: dict[str, Callable[..., Lanes]] = {
    "absolute": lambda x, y, p: _sign(x),
    "square": lambda x, y, p: x / y,
    "power": lambda x, y, p: _power(abs(x / y), _added(x.builder, p, -1.0)).with_sign_of(x),
}


def _function(emit: Callable[..., Lanes], dtype: str, lanes: int) -> Callable[..., Any]:
    """The function of three vectors and p, a double, that the instructions compute."""
    kind = VectorType(number_type(dtype), lanes)

    @intrinsic
    def function(typing_context, a, b, c, p):
        def codegen(context, builder, signature, args):
            return emit(*(Lanes(builder, arg) for arg in args[:3]), args[3]).value

        return kind(kind, kind, kind, types.float64), codegen

    return function


def forward(power: str, dtype: str, lanes: int, whole: bool, run: int, k0: int, k1: int, k2: int) -> Callable[..., Any]:
    """Rows of y, (N, *out, C); ``power`` is "absolute", "square" or "power", the rest as in average pools.

    Arguments: x, y, plan, channels, rows of all images, rows of a task.
    """
    number = number_type(dtype)
    numbers, zero, splat = pointers(number), number(0), vectors(dtype, lanes).splat
    (load, store), (merge, result) = access(dtype, lanes, whole), merger(run > 0)
    size0, size1, size2, length = known(k0), known(k1), known(k2), known(run)
    absolute, inverse = unary(abs, dtype, lanes), unary(_inverse, dtype, lanes)
    term = _function(_TERMS[power], dtype, lanes)
    root = _function(lambda total, by, _, p: _ROOTS[power](total, p) / by, dtype, lanes)
    scaled = power != "absolute"

    def kernel(args, task, slot):
        x, y, plan = numbers(args[0]), numbers(args[1]), words(args[2])
        channels, rows, each = args[3], args[4], args[5]
        n0, m0, cells0, step0, _, by0 = of_windows(plan, 0)
        n1, m1, cells1, step1, _, by1 = of_windows(plan, 1)
        n2, m2, cells2, step2, _, by2 = of_windows(plan, 2)
        for row in range(task * each, min(rows, (task + 1) * each)):
            image, i, j = row // (m0 * m1), row // m1 % m0, row % m1
            first0, count0 = cells0[2 * i], size0(cells0[2 * i + 1])
            first1, count1 = cells1[2 * j], size1(cells1[2 * j + 1])
            for k in range(m2):
                first2, count2 = cells2[2 * k], size2(cells2[2 * k + 1])
                p = by0[i] * by1[j] * by2[k]
                for c in range(0, channels, lanes):
                    left = channels - c
                    by = splat(number(1))
                    if scaled:
                        peak = splat(zero)
                        for e in range(count0):
                            for f in range(count1):
                                line = (image * n0 + first0 + e * step0) * n1 + first1 + f * step1
                                for g in range(count2):
                                    v = absolute(load(x, (line * n2 + first2 + g * step2) * channels + c, left))
                                    peak = choose(v > peak, v, peak)
                        by = inverse(peak)
                    total, lost = splat(zero), splat(zero)
                    for e in range(count0):
                        for f in range(count1):
                            line = (image * n0 + first0 + e * step0) * n1 + first1 + f * step1
                            for start in range(0, count2, length(count2)):
                                part = splat(zero)
                                for g in range(start, min(start + length(count2), count2)):
                                    v = load(x, (line * n2 + first2 + g * step2) * channels + c, left)
                                    part = term(v, by, part, p)
                                total, lost = merge(total, lost, part)
                    total = result(total, lost)
                    store(y, (row * m2 + k) * channels + c, root(total, by, by, p), left)

    return kernel


def backward(power: str, dtype: str, lanes: int, whole: bool, alone: bool, run: int) -> Callable[..., Any]:
    """`gather` of what each cell gets from the windows that see it; y is what they keep."""
    load = access(dtype, lanes, whole)[0]

    def of_cell(x, y, dy, p):
        return dy * _SHARES[power](x, y.compare("==", 0.0).choose(1.0, y, y), p)

    share_of = _function(of_cell, dtype, lanes)

    def own(x, place, code, left):
        return load(x, place, left)

    def share(dy, y, place, y_place, cell, p, left):
        return share_of(cell, load(y, y_place, left), load(dy, place, left), p)

    return gather(dtype, dtype, lanes, whole, alone, run, helper(own), helper(share))
