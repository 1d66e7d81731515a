"""The register tile of depthwise weight gradients: sums over pixels, channels in the lanes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.cells import Cells, Fields, Taps, constant
from xpconv.engines.numba.kernels.memory import WORDS
from xpconv.engines.numba.kernels.registers import Registers
from xpconv.engines.numba.kernels.vectors import I64
from xpconv.engines.numba.kernels.walk import STEP1, STEP2, TAPS, Y1, Y2


def channel_outer_tile(dtype: str, rows: int, lanes: int, partial: bool, taps: Taps) -> Callable[..., Any]:
    """One vector of channels, each by itself: for one block of taps, sums over pixels of x[pixel, tap, :] dy[pixel, :].

    Pixels are taken P neighbours at a time, for which x is loaded once for all the products it is in; at the edges of
    an image, and where some are left over in a line, one by one.
    Arguments: ``args`` (`fields.Walk`), then integers: the ``block`` of taps; ``image``, the address of an image in x,
    and the first pixel's i in cells, j and k in pixels; how many ``lines``, and ``pixels`` in each; ``dy``, the address
    of the first pixel's gradient; ``out``, where sums are added, the bytes from row to row; ``left``.
    """

    @intrinsic
    def tile(typing_context, args, block, image, i, j, k, lines, pixels, dy, out, out_row, left):
        def codegen(context, builder, signature, arguments):
            args, block, image, i, j, k, lines, pixels, dy, out, out_row, left = arguments
            b, fields = builder, Fields(builder, args)
            r = Registers(b, dtype, taps.number, 1, lanes, left if partial else None)
            r.clear()
            step1, step2, y1, y2 = (fields[name] for name in (STEP1, STEP2, Y1, Y2))
            tap = b.add(fields[TAPS], b.mul(block, constant(32 * taps.number)))
            place = cgutils.alloca_once(b, I64)  # of the next pixel in its line

            def add_rows(seen, tap_rows, count, whole, column, gradients):
                """Add what neighbours give to the sums of some tap rows."""
                places = {t: seen.places(t, column, whole) for t in tap_rows}
                for q in range(taps.positions(count)):
                    uses = taps.met(count, q)
                    for t, at in places.items() if uses else ():
                        x = r.load(at(q), 0)
                        for p, tap in uses:
                            total = r.sums[t * taps.run + tap][0]
                            b.store(b.call(r.fma, [x, gradients[p], b.load(total)]), total)

            def add_pixels(seen, there, count, whole, column, first):
                """Add what so many neighbours give, of which the first one's gradient is at an address."""
                gradients = [r.load(b.add(first, b.mul(y2, constant(p))), 0) for p in range(count)]
                with b.if_else(functools.reduce(b.and_, there)) as (inside, edge):
                    with inside:  # several tap rows at a time: sums that do not wait for one another
                        add_rows(seen, range(taps.tap_rows), count, whole, column, gradients)
                    with edge:
                        for t in range(taps.tap_rows):
                            with b.if_then(there[t]):
                                add_rows(seen, [t], count, whole, column, gradients)
                b.store(b.add(b.load(place), constant(count)), place)

            with cgutils.for_range(b, lines) as line:
                seen = Cells(b, fields, image, i, b.mul(b.add(j, line.index), step1)).under(tap)
                there = [seen.in_row(t) for t in range(taps.tap_rows)]
                start = b.add(dy, b.mul(line.index, y1))
                b.store(constant(0), place)
                with _loop_while(b, lambda: b.icmp_signed("<", b.load(place), pixels)):
                    at = b.load(place)
                    column, first = seen.column(b.mul(b.add(k, at), step2)), b.add(start, b.mul(at, y2))
                    fits = b.icmp_signed("<=", b.add(at, constant(rows)), pixels)
                    with b.if_else(b.and_(fits, seen.whole(column, taps.positions(rows)))) as (many, one):
                        with many:
                            add_pixels(seen, there, rows, True, column, first)
                        with one:
                            add_pixels(seen, there, 1, False, column, first)
            for t in range(taps.number):
                row = b.add(out, b.mul(out_row, constant(t)))
                r.store(b.fadd(r.load(row, 0), b.load(r.sums[t][0])), row, 0)
            return context.get_dummy_value()

        return types.void(WORDS, *[types.int64] * 11), codegen

    return tile


@contextmanager
def _loop_while(builder: Any, condition: Callable[[], Any]) -> Iterator[None]:
    """A loop in LLVM's language, as long as what the function emits is true."""
    head, body, end = (builder.append_basic_block(f"while.{part}") for part in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(condition(), body, end)
    builder.position_at_end(body)
    yield
    builder.branch(head)
    builder.position_at_end(end)
