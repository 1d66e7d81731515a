"""The register tile of convolutions with few channels on both sides: neighbouring pixels in the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.cells import Fields, constant
from xpconv.engines.numba.kernels.interleave import interleaved
from xpconv.engines.numba.kernels.line_tile import ACTIVATION, BIAS, LINE, OFFSET_COUNT, OFFSETS, RESIDUAL, W_ROW, W
from xpconv.engines.numba.kernels.memory import WORDS
from xpconv.engines.numba.kernels.registers import Registers, finish, word
from xpconv.engines.numba.kernels.walk import COUNT2, Y1, Y2


def pixel_tile(dtype: str, rows: int, vectors: int, lanes: int, channels: int) -> Callable[..., Any]:
    """All output channels of some lines of pixels, V vectors of neighbours in each: finish(Σ x · w).

    Each number of x is read for neighbouring pixels at once, by an offset for each term from the pixel's first cell;
    weights are broadcast; and sums are turned so that a pixel's channels lie side by side before they are stored. The
    last vectors of a line overlap those before, and compute the same again.
    Arguments: ``args`` (`fields.Bands` after a `Walk`), then integers: ``x``, the address of what the first line's
    first pixel reads first, ``out``, that of its output, ``k``, the pixel of the line that the tile starts at, and how
    many lines are ``kept``: in place of others the last that is kept is done again.
    """

    @intrinsic
    def tile(typing_context, args, x, out, k, kept):
        def codegen(context, builder, signature, arguments):
            args, x, out, k, kept = arguments
            b, fields = builder, Fields(builder, args)
            r = Registers(b, dtype, rows * vectors, channels, lanes, None)
            r.clear()
            last, zero, size = b.sub(fields[COUNT2], constant(lanes)), constant(0), constant(r.size)
            starts = [b.add(k, constant(v * lanes)) for v in range(vectors)]
            starts = [b.select(b.icmp_signed("<", start, last), start, last) for start in starts]
            bottom = b.sub(kept, constant(1))
            lines = [b.select(b.icmp_signed("<", constant(y), kept), constant(y), bottom) for y in range(rows)]
            tiles = [(line, start) for line in lines for start in starts]
            cells = [b.add(b.add(x, b.mul(fields[LINE], line)), b.mul(start, size)) for line, start in tiles]
            w, w_row, offsets = fields[W], fields[W_ROW], fields[OFFSETS]
            with cgutils.for_range(b, fields[OFFSET_COUNT]) as term:
                ahead, weights = word(b, offsets, term.index), b.add(w, b.mul(term.index, w_row))
                pixels = [r.load(b.add(cell, ahead), 0) for cell in cells]
                for o in range(channels):
                    weight = r.broadcast(b.add(weights, constant(o * r.size)))
                    for sums, pixel in zip(r.sums, pixels, strict=True):
                        b.store(b.call(r.fma, [pixel, weight, b.load(sums[o])]), sums[o])
            bias, residual, act = (fields[name] for name in (BIAS, RESIDUAL, ACTIVATION))
            with b.if_then(b.icmp_signed("!=", bias, zero)):
                for o in range(channels):
                    more = r.broadcast(b.add(bias, constant(o * r.size)))
                    for sums in r.sums:
                        b.store(b.fadd(b.load(sums[o]), more), sums[o])
            for p, (line, start) in enumerate(tiles):
                for vector, place in zip(interleaved(b, [b.load(s) for s in r.sums[p]]), r.sums[p], strict=True):
                    b.store(vector, place)
                at = b.add(b.add(out, b.mul(fields[Y1], line)), b.mul(start, fields[Y2]))
                finish(r, p, at, zero, zero, b.add(at, residual), residual, act, zero)
            return context.get_dummy_value()

        return types.void(WORDS, *[types.int64] * 4), codegen

    return tile
