"""The register tile of convolutions with few input channels: neighbours in a line of cells that are all there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.fields import Bands
from xpconv.engines.numba.kernels.cells import Fields, constant
from xpconv.engines.numba.kernels.memory import WORDS
from xpconv.engines.numba.kernels.registers import RELU6, Registers, store_past_caches, word
from xpconv.engines.numba.kernels.walk import AFTER_WALK, Y2

W, W_ROW, OFFSETS, OFFSET_COUNT, TERMS, PART, LINE, BIAS, RESIDUAL, ACTIVATION, STREAM = (
    AFTER_WALK + Bands._fields.index(name)
    for name in (
        "w", "w_row", "offsets", "offset_count", "terms", "part", "line", "bias", "residual", "activation", "stream",
    )
)  # fmt: skip


def line_tile(dtype: str, rows: int, vectors: int, lanes: int, step: int, single: bool) -> Callable[..., Any]:
    """V vectors of output channels of P neighbouring pixels, so many numbers apart: finish(Σ x · w).

    ``single``: all terms are one running sum. Arguments: ``args`` (`fields.Bands` after a `Walk`), then integers:
    ``x``, the address of the first pixel's first number, ``out``, that of its output, and the bytes ``offset`` to the
    first channel.
    """

    @intrinsic
    def tile(typing_context, args, x, out, offset):
        def codegen(context, builder, signature, arguments):
            args, x, out, offset = arguments
            b, fields = builder, Fields(builder, args)
            r = Registers(b, dtype, rows, vectors, lanes, None)
            w, w_row, offsets, terms = b.add(fields[W], offset), fields[W_ROW], fields[OFFSETS], fields[TERMS]
            w_tap, taps = b.mul(w_row, terms), fields[OFFSET_COUNT]

            def add_taps(start, stop):
                r.clear()
                with cgutils.for_range_slice(b, start, stop, constant(1)) as (tap, _):
                    first, weights = b.add(x, word(b, offsets, tap)), b.add(w, b.mul(w_tap, tap))
                    with cgutils.for_range(b, terms) as term:
                        at = b.add(first, b.mul(term.index, constant(r.size)))
                        numbers = [b.add(at, constant(p * step * r.size)) for p in range(rows)]
                        r.step(numbers, b.add(weights, b.mul(w_row, term.index)))

            if single:
                add_taps(constant(0), taps)
            else:
                totals = [[cgutils.alloca_once(b, r.kind) for _ in row] for row in r.sums]
                for row in totals:
                    for total in row:
                        b.store(r.constant(0.0), total)
                part = fields[PART]
                with cgutils.for_range_slice(b, constant(0), taps, part) as (start, _):
                    stop = b.add(start, part)
                    add_taps(start, b.select(b.icmp_signed("<", stop, taps), stop, taps))
                    for row, sums in zip(totals, r.sums, strict=True):
                        for total, more in zip(row, sums, strict=True):
                            b.store(b.fadd(b.load(total), b.load(more)), total)
                r.sums = totals
            _finish(r, fields, out, offset)
            return context.get_dummy_value()

        return types.void(WORDS, *[types.int64] * 3), codegen

    return tile


def _finish(r: Registers, fields: Fields, out: Any, offset: Any) -> None:
    """Add to the sums of all pixels what is due, and store them."""
    b, zero, y2 = r.b, constant(0), fields[Y2]
    places = [b.add(b.add(out, offset), b.mul(y2, constant(p))) for p in range(r.rows)]
    bias, residual, act = (fields[name] for name in (BIAS, RESIDUAL, ACTIVATION))

    def update(change: Callable[[Any, int, int], Any]) -> None:
        for p, row in enumerate(r.sums):
            for v, place in enumerate(row):
                b.store(change(b.load(place), p, v), place)

    with b.if_then(b.icmp_signed("!=", bias, zero)):
        vectors = [r.load(b.add(bias, offset), v) for v in range(r.columns)]
        update(lambda z, p, v: b.fadd(z, vectors[v]))
    with b.if_then(b.icmp_signed("!=", residual, zero)):
        update(lambda z, p, v: b.fadd(z, r.load(b.add(places[p], residual), v)))
    low, high = r.constant(0.0), r.constant(6.0)
    with b.if_then(b.icmp_signed("!=", act, zero)):
        update(lambda z, p, v: b.select(b.fcmp_ordered("<", z, low), low, z))
    with b.if_then(b.icmp_signed("==", act, constant(RELU6))):
        update(lambda z, p, v: b.select(b.fcmp_ordered(">", z, high), high, z))
    with b.if_else(b.icmp_signed("!=", fields[STREAM], zero)) as branches:
        for branch, store in zip(branches, (store_past_caches, Registers.store), strict=True):
            with branch:
                for row, place in zip(r.sums, places, strict=True):
                    for v, value in enumerate(row):
                        store(r, b.load(value), place, v)
