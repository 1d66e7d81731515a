"""The attributes that convolutions and pools share: strides, dilations, pads, auto_pad."""

from __future__ import annotations

from typing import Any

from xpconv.exchange.onnx.table import Node

_AUTO = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}


def window_options(node: Node) -> dict[str, Any]:
    """``stride``, ``dilation`` and ``padding`` of an op, without those that the node leaves at 1 and 0."""
    options: dict[str, Any] = {"stride": 1}
    for ours, theirs in (("stride", "strides"), ("dilation", "dilations")):
        if node.get(theirs) is not None:
            options[ours] = tuple(node.get(theirs))
    auto = node.one_of("auto_pad", "NOTSET", ("NOTSET", *_AUTO))
    pads = node.get("pads")
    if auto != "NOTSET":
        options["padding"] = _AUTO[auto]
    elif pads is not None:
        options["padding"] = pairs(pads)
    return options


def pairs(pads: Any) -> tuple[tuple[int, int], ...]:
    """ONNX's ``(all before, all after)`` as one ``(before, after)`` per axis."""
    half = len(pads) // 2
    return tuple(zip(map(int, pads[:half]), map(int, pads[half:]), strict=True))
