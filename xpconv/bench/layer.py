"""A layer by name: an op on one shape of image, or a whole network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """An op on one shape of image, or a network: its training step, or its inference.

    ``x`` has no batch axis; ``parameters`` are the op's other arrays, in signature order.
    """

    set: str
    name: str
    op: str
    x: Shape
    parameters: dict[str, Shape] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
