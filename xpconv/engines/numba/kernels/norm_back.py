"""Gradients of batch normalisation: sums of slabs, what follows from them for each channel, and a pass over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from xpconv.activations import FROM_OUTPUT
from xpconv.engines.numba.kernels.mathematics import activate, slope
from xpconv.engines.numba.kernels.memory import number_type, pointers
from xpconv.engines.numba.kernels.norm import DRIFT, RSTD, SCALE, SHIFT, identity
from xpconv.engines.numba.kernels.sums import BLOCK, adder, doubles, end_put, ends, row_tools, together
from xpconv.engines.numba.kernels.vectors import multiply_add, vectors

# Rows of what is settled, (6, channels): dx = dz · SCALE + (x - MEAN) · FACTOR + OFFSET.
PLAIN, WEIGHTED, OF_MEAN, OF_VAR, FACTOR, OFFSET = range(6)  # the sums of dz and of dz · x̂; gradients of statistics


@njit
def _unchanged(rest, scale, shift, dy):
    return dy


def _through(activation: str | None, dtype: str, lanes: int) -> Callable[..., Any]:
    """``dz(rest, scale, shift, dy)``: dy taken back through the activation, with rest = x - mean."""
    if activation is None:
        return _unchanged
    kept = activate(activation, dtype, lanes) if activation in FROM_OUTPUT else identity
    back = slope(activation, dtype, lanes)

    @njit
    def dz(rest, scale, shift, dy):
        return back(kept(multiply_add(rest, scale, shift)), dy)

    return dz


def _joined(activation: Any, dtype: str, lanes: int) -> Callable[..., Any]:
    """``dz(rest, scale, shift, dy, other)``: as `_through`, of an activation that was applied to a sum with a residual.

    The other array is y where the derivative follows from it, else the residual.
    """
    back = slope(activation, dtype, lanes)

    @njit
    def from_output(rest, scale, shift, dy, other):
        return back(other, dy)

    @njit
    def from_sum(rest, scale, shift, dy, other):
        return back(multiply_add(rest, scale, shift) + other, dy)

    return from_output if activation in FROM_OUTPUT else from_sum


def slab_gradients(dtype: str, lanes: int, ragged: bool, activation: str | None, joined: bool) -> Callable[..., Any]:
    """``sums(x, dy, start, last, n, table, parts, other, dz)``: over rows, of dz and of dz (x - mean).

    Parts: (4, channels), the two sums, and those of a block. If ``joined``, y is the activation of a sum with a
    residual: y or the residual, ``other``, is read too, and dz written.
    """
    get, put = ends(dtype, lanes, ragged)
    clear, gather = row_tools(dtype, lanes, ragged)
    through = _through(None if joined else activation, dtype, lanes)
    back = _joined(activation, dtype, lanes) if joined else None

    @njit
    def alone(rest, scale, shift, dy, i, left, other, dz):
        return through(rest, scale, shift, get(dy, i, left))

    @njit
    def together_with(rest, scale, shift, dy, i, left, other, dz):
        value = back(rest, scale, shift, get(dy, i, left), get(other, i, left))
        put(dz, i, value, left)
        return value

    before = together_with if joined else alone

    @njit
    def two(x, dy, i, n, left, mean, scale, shift, other, dz):
        a, b = get(x, i, left) - mean, get(x, i + n, left) - mean
        da = before(a, scale, shift, dy, i, left, other, dz)
        db = before(b, scale, shift, dy, i + n, left, other, dz)
        return da + db, multiply_add(da, a, db * b)

    @njit
    def sums(x, dy, start, last, n, table, parts, other, dz):
        block, block_weighted = 2 * n, 3 * n
        clear(parts, 0, 2 * n)
        for first in range(start, last, BLOCK):
            stop = min(first + BLOCK, last)
            clear(parts, block, 2 * n)
            fours = together(first, stop, 4, n)
            for r in range(first, fours, 4):
                for c in range(0, n, lanes):
                    i, left = r * n + c, n - c
                    mean, scale = get(table, c, left), get(table, SCALE * n + c, left)
                    shift = get(table, SHIFT * n + c, left)
                    plain, weighted = two(x, dy, i, n, left, mean, scale, shift, other, dz)
                    more, more_weighted = two(x, dy, i + 2 * n, n, left, mean, scale, shift, other, dz)
                    put(parts, block + c, get(parts, block + c, left) + (plain + more), left)
                    product = get(parts, block_weighted + c, left) + (weighted + more_weighted)
                    put(parts, block_weighted + c, product, left)
            for r in range(fours, stop):
                for c in range(0, n, lanes):
                    i, left = r * n + c, n - c
                    a = get(x, i, left) - get(table, c, left)
                    scale, shift = get(table, SCALE * n + c, left), get(table, SHIFT * n + c, left)
                    da = before(a, scale, shift, dy, i, left, other, dz)
                    put(parts, block + c, get(parts, block + c, left) + da, left)
                    put(parts, block_weighted + c, multiply_add(da, a, get(parts, block_weighted + c, left)), left)
            gather(parts, 0, parts, 2, 3, n)
            gather(parts, n, parts, 3, 4, n)

    return sums


def gradient_sums(dtype: str, lanes: int, ragged: bool, activation: str | None, joined: bool) -> Callable[..., Any]:
    """The parts of a slab. Arguments: x, dy, rows, channels, rows in a slab, table, parts, step, and other and dz."""
    at, of_slab = pointers(number_type(dtype)), slab_gradients(dtype, lanes, ragged, activation, joined)
    nbytes = number_type(dtype).bitwidth // 8

    def kernel(args, task, slot):
        start, parts = args[4] * task, at(args[6] + task * args[7] * nbytes)
        last = min(start + args[4], args[2])
        of_slab(at(args[0]), at(args[1]), start, last, args[3], at(args[5]), parts, at(args[8]), at(args[9]))

    return kernel


def settle_gradients(dtype: str, lanes: int, panel: int) -> Callable[..., Any]:
    """Gradients of a panel of channels. Arguments: parts, slabs, their step, rows, channels, table, what is settled.

    With s = gamma · rstd: dx = s (dz - Σ dz / N - x̂ Σ dz x̂ / N).
    """
    at, add_up, splat = pointers(number_type(dtype)), adder(dtype, lanes), vectors("float64", lanes).splat
    get, put = doubles(dtype, lanes)

    def kernel(args, task, slot):
        parts, slabs, step, rows, n, table, out = (
            at(args[0]),
            args[1],
            args[2],
            args[3],
            args[4],
            at(args[5]),
            at(args[6]),
        )
        share, half = splat(-1.0 / max(rows, 1)), splat(-0.5)
        for c in range(task * panel, min((task + 1) * panel, n), lanes):
            left = n - c
            rstd, scale = get(table, RSTD * n + c, left), get(table, SCALE * n + c, left)
            drift = get(table, DRIFT * n + c, left)
            plain = add_up(parts, c, step, slabs, left)
            weighted = rstd * (add_up(parts, n + c, step, slabs, left) - drift * plain)
            factor = scale * rstd * weighted * share
            put(out, PLAIN * n + c, plain, left)
            put(out, WEIGHTED * n + c, weighted, left)
            put(out, OF_MEAN * n + c, (half + half) * scale * plain, left)
            put(out, OF_VAR * n + c, half * scale * rstd * weighted, left)
            put(out, FACTOR * n + c, factor, left)
            put(out, OFFSET * n + c, scale * plain * share - drift * factor, left)

    return kernel


def row_gradient(
    dtype: str, lanes: int, ragged: bool, activation: str | None, given: bool, stream: bool
) -> Callable[..., Any]:
    """``gradient(x, dy, dx, first, last, n, table, settled)``: dx of some rows.

    Statistics that were given do not depend on x: then dx is dz · scale alone.
    """
    get, _ = ends(dtype, lanes, ragged)
    put = end_put(dtype, lanes, ragged, stream)
    through = _through(activation, dtype, lanes)

    @njit
    def chain(dz, scale, rest, factor, offset):
        return dz * scale if given else multiply_add(dz, scale, multiply_add(rest, factor, offset))

    @njit
    def gradient(x, dy, dx, first, last, n, table, settled):
        fours = together(first, last, 4, n)
        for r in range(first, fours, 4):
            for c in range(0, n, lanes):
                left = n - c
                mean, scale, shift = (
                    get(table, c, left),
                    get(table, SCALE * n + c, left),
                    get(table, SHIFT * n + c, left),
                )
                factor, offset = get(settled, FACTOR * n + c, left), get(settled, OFFSET * n + c, left)
                for i in range(r * n + c, r * n + c + 4 * n, n):
                    rest = get(x, i, left) - mean
                    dz = through(rest, scale, shift, get(dy, i, left))
                    put(dx, i, chain(dz, scale, rest, factor, offset), left)
        for r in range(fours, last):
            for c in range(0, n, lanes):
                left = n - c
                rest, scale = get(x, r * n + c, left) - get(table, c, left), get(table, SCALE * n + c, left)
                dz = through(rest, scale, get(table, SHIFT * n + c, left), get(dy, r * n + c, left))
                factor, offset = get(settled, FACTOR * n + c, left), get(settled, OFFSET * n + c, left)
                put(dx, r * n + c, chain(dz, scale, rest, factor, offset), left)

    return gradient


def gradient(
    dtype: str, lanes: int, ragged: bool, activation: str | None, given: bool, stream: bool
) -> Callable[..., Any]:
    """dx of a run of rows. Arguments: x, dy, dx, rows, channels, rows in a run, table, what `settle_gradients` left."""
    at, of_rows = pointers(number_type(dtype)), row_gradient(dtype, lanes, ragged, activation, given, stream)

    def kernel(args, task, slot):
        rows, run = args[3], args[5]
        first = ((rows - 1) // run - task) * run
        last = min(first + run, rows)
        of_rows(at(args[0]), at(args[1]), at(args[2]), first, last, args[4], at(args[6]), at(args[7]))

    return kernel
