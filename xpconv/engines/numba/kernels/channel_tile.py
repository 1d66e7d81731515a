"""The register tiles of depthwise convolution: neighbours in lines and rows, which share cells, channels in the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.cells import Block, Fields, Taps, constant
from xpconv.engines.numba.kernels.memory import WORDS
from xpconv.engines.numba.kernels.registers import RELU6, Registers, prefetch
from xpconv.engines.numba.kernels.vectors import I32
from xpconv.engines.numba.kernels.walk import TAPS, Y1, Y2


def channel_tile(dtype: str, lines: int, rows: int, lanes: int, partial: bool, taps: Taps) -> Callable[..., Any]:
    """L lines of P neighbouring pixels × a vector of channels, each by itself: sums of x[pixel, t, :] w[t, :] over taps.

    Each cell under the pixels of a block of taps is loaded once for all the products it is in, but in the columns at an
    edge of the image by the same instructions as elsewhere.
    Arguments: ``args`` (`fields.Walk`), then integers: ``block`` to ``stop`` of taps; ``image``, the address of an image
    in x, and the first pixel's (i, j, k) in cells, but for the taps' offsets; ``w``, the bytes from row to row of
    weights, from tap to tap, and from tap row to tap row; ``out``, the address of the first pixel's output; how many
    of the L lines and of the P pixels in each are kept; whether sums go on from what is there; the ``bias`` address
    (or 0), ``residual`` (bytes from an output to its residual, or 0) and the activation; ``left``, the lanes that are
    there if the vector is partial; ``stream``: x and y are larger than the caches.
    """
    count, depth = taps.positions(rows), (lines - 1) * taps.line_step + taps.tap_rows

    @intrinsic
    def tile(
        typing_context,
        args,
        block,
        stop,
        image,
        i,
        j,
        k,
        w,
        w_row,
        w_tap,
        w_line,
        out,
        lines_kept,
        kept,
        more,
        bias,
        residual,
        act,
        left,
        stream,
    ):
        def codegen(context, builder, signature, arguments):
            args, block, stop, image, i, j, k, w, w_row, w_tap, w_line, out, lines_kept, kept = arguments[:14]
            more, bias, residual, act, left, stream = arguments[14:]
            b = builder
            r = Registers(b, dtype, lines * rows, 1, lanes, left if partial else None)
            r.clear()

            def add_row(cells, line, place):
                """Add a line of cells to all the sums it belongs to."""
                meets = [(y, line - y * taps.line_step) for y in range(lines)]
                meets = [(y, t) for y, t in meets if 0 <= t < taps.tap_rows]
                weights = {}
                for _, t in meets:
                    row = b.add(place, b.mul(w_line, constant(t)))
                    weights[t] = [r.load(b.add(row, b.mul(w_tap, constant(q))), 0) for q in range(taps.run)]
                for q in range(count):
                    uses = taps.met(rows, q)
                    if uses:
                        x = r.load(cells(q), 0)
                        for y, t in meets:
                            for p, tap in uses:
                                at = r.sums[y * rows + p][0]
                                b.store(b.call(r.fma, [x, weights[t][tap], b.load(at)]), at)

            with cgutils.for_range_slice(b, block, stop, constant(1)) as (index, _):
                tap = b.add(Fields(b, args)[TAPS], b.mul(index, constant(32 * taps.tap_rows * taps.run)))
                seen = Block(b, args, tap)
                seen.see(image, i, j, k)
                place = b.add(w, b.mul(seen.weight_row, w_row))
                used = [line for line in range(depth) if any(0 <= line - y * taps.line_step < taps.tap_rows for y in range(lines))]
                with b.if_else(seen.whole(count)) as branches:
                    for branch, whole in zip(branches, (True, False), strict=True):
                        with branch:
                            for line in used:
                                with b.if_then(seen.in_row(line)):
                                    add_row(seen.cells(line, whole), line, place)
                with b.if_then(b.icmp_signed("!=", stream, constant(0))):
                    for line in range(depth, depth + lines * taps.line_step):
                        with b.if_then(seen.in_row(line)):
                            cells = seen.cells(line, True)
                            for q in range(rows * taps.step):
                                prefetch(b, cells(q))
            finish_pixels(r, Fields(b, args), rows, out, lines_kept, kept, more, bias, residual, act, stream)
            return context.get_dummy_value()

        return types.void(WORDS, *[types.int64] * 19), codegen

    return tile


def finish_pixels(
    r: Registers, args: Any, rows: int, out: Any, lines_kept: Any, kept: Any, more: Any, bias: Any, residual: Any, act: Any, stream: Any
) -> None:
    """`registers.finish` for lines of neighbours: what is due is asked once for all of them.

    Pixels that are not kept go where the last that is kept goes, and are stored before it.
    """
    b, sums = r.b, [row[0] for row in r.sums]

    def clamped(index: int, limit: Any) -> Any:
        last = b.sub(limit, constant(1))
        return b.select(b.icmp_signed("<", constant(index), limit), constant(index), last) if index else constant(0)

    places = []
    for y in range(len(sums) // rows):
        line = b.add(out, b.mul(clamped(y, lines_kept), args[Y1]))
        places += [b.add(line, b.mul(clamped(p, kept), args[Y2])) for p in range(rows)]

    def when(flag: Any) -> Any:
        return b.if_then(b.icmp_signed("!=", flag, constant(0)))

    def update(change: Callable[[Any, Any], Any]) -> None:
        for at, place in zip(sums, places, strict=True):
            b.store(change(b.load(at), place), at)

    with when(more):
        update(lambda z, place: b.fadd(z, r.load(place, 0)))
    with when(bias):
        added = r.load(bias, 0)
        update(lambda z, place: b.fadd(z, added))
    with when(residual):
        update(lambda z, place: b.fadd(z, r.load(b.add(place, residual), 0)))
    low, high = r.constant(0.0), r.constant(6.0)
    with when(act):
        update(lambda z, place: b.select(b.fcmp_ordered("<", z, low), low, z))
    with b.if_then(b.icmp_signed("==", act, constant(RELU6))):
        update(lambda z, place: b.select(b.fcmp_ordered(">", z, high), high, z))
    with b.if_else(b.icmp_signed("!=", stream, constant(0))) as (past, through):
        with past:
            for at, place in zip(reversed(sums), reversed(places), strict=True):
                store_past_caches(r, b.load(at), place)
        with through:
            for at, place in zip(reversed(sums), reversed(places), strict=True):
                r.store(b.load(at), place, 0)


def store_past_caches(r: Registers, value: Any, place: Any) -> None:
    """Store a whole line of the cache that nobody will read soon, without reading it first."""
    b = r.b
    store = b.store(value, b.inttoptr(place, r.kind.as_pointer()))
    store.align = r.lanes * r.size
    store.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))
