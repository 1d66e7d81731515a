"""Vectors of one channel each, turned into the memory order of channels side by side, by shuffles of registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from xpconv.engines.numba.kernels.vectors import I32

Group = list[Any]  # vectors that hold some channels of as many pixels as there are lanes, pixel by pixel


def interleaved(builder: Any, channels: list[Any]) -> list[Any]:
    """From vectors of one channel of neighbouring pixels to as many vectors with all channels of pixel after pixel."""
    groups = [[vector] for vector in channels]
    while len(groups) > 1:
        together = next(n for n in range(2, len(groups) + 1) if len(groups) % n == 0)
        groups = [_merged(builder, groups[i : i + together]) for i in range(0, len(groups), together)]
    return groups[0]


def _merged(b: Any, groups: list[Group]) -> Group:
    """Groups of equally many channels as one."""
    lanes, each = groups[0][0].type.count, len(groups[0])
    width = each * len(groups)

    def source(number: int) -> tuple[Any, int]:
        """Which vector and lane the number at a place is in."""
        pixel, channel = divmod(number, width)
        at = pixel * each + channel % each
        return groups[channel // each][at // lanes], at % lanes

    return [_gathered(b, [source(v * lanes + lane) for lane in range(lanes)]) for v in range(width)]


def _gathered(b: Any, sources: list[tuple[Any, int]]) -> Any:
    """A vector of given lanes of others."""
    lanes = len(sources)
    others = list(dict.fromkeys(vector for vector, _ in sources))
    total = others[0]
    places = [lane if vector is total else None for vector, lane in sources]
    for other in others[1:]:
        mask = [
            place if place is not None else lanes + lane if vector is other else None
            for place, (vector, lane) in zip(places, sources, strict=True)
        ]
        total = b.shuffle_vector(total, other, _mask(mask))
        places = [None if place is None else lane for lane, place in enumerate(mask)]
    if len(others) == 1 and places != list(range(lanes)):
        total = b.shuffle_vector(total, ir.Constant(total.type, ir.Undefined), _mask(places))
    return total


def _mask(places: list[int | None]) -> Any:
    """A lane that no place is known for yet may be any: its own."""
    kind = ir.VectorType(I32, len(places))
    return ir.Constant(kind, [lane if place is None else place for lane, place in enumerate(places)])
