"""Which cells an output of a resize reads along one axis, and their weights, as ONNX's Resize defines them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xpconv.exchange.onnx.table import Node, Refusal

COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric", "tf_crop_and_resize"),
)
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """What becomes of one axis."""

    size: int
    out: int
    scale: float
    crop: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Style:
    """How an axis is sampled."""

    mode: str  # nearest, linear, cubic
    coordinates: str
    rounding: str = ""  # of the nearest cell
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0

    @classmethod
    def of(cls, node: Node) -> Style:
        """The style that a node's attributes ask for."""
        mode = node.one_of("mode", "nearest", ("nearest", "linear", "cubic"))
        early = "asymmetric" if node.version < 11 else "half_pixel"
        rounding = node.one_of("nearest_mode", "floor" if node.version < 11 else "round_prefer_floor", tuple(ROUNDINGS))
        if mode == "nearest" and node.get("antialias", 0):
            raise Refusal("antialias=1 with mode='nearest'")
        return cls(
            mode,
            node.one_of("coordinate_transformation_mode", early, COORDINATES),
            rounding if mode == "nearest" else "",
            node.get("cubic_coeff_a", -0.75),
            bool(node.get("antialias", 0)),
            bool(node.get("exclude_outside", 0)),
            node.get("extrapolation_value", 0.0),
        )

    @property
    def crops(self) -> bool:
        """Whether the coordinates are those of a region of the input."""
        return self.coordinates == "tf_crop_and_resize"

    def places(self, axis: Axis) -> np.ndarray:
        """Where each output lies among the input's cells, (out,)."""
        i, n, out, scale = np.arange(axis.out, dtype=np.float64), axis.size, axis.out, axis.scale
        if self.coordinates == "asymmetric":
            return i / scale
        if self.coordinates == "align_corners":
            last = scale * n - 1  # of the output, which a scale need not make whole
            return i * (n - 1) / last if last else 0 * i
        if self.crops:
            start, end = axis.crop
            if out == 1:
                return np.full(1, 0.5 * (start + end) * (n - 1))
            return start * (n - 1) + i * (end - start) * (n - 1) / (out - 1)
        if self.coordinates == "pytorch_half_pixel" and out == 1:
            return np.full(1, -0.5)
        centred = (i + 0.5) / scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            adjusted = out / (scale * n)
            return n / 2 * (1 - adjusted) + centred
        return centred

    def table(self, axis: Axis) -> tuple[np.ndarray, np.ndarray | None]:
        """Cells (out, taps), clipped to the axis, and their weights; one tap has none."""
        at = self.places(axis)
        if self.mode == "nearest":
            cells = ROUNDINGS[self.rounding](at).astype(np.int64)[:, None]
            return cells.clip(0, axis.size - 1), None
        reach = 1 if self.mode == "linear" else 2
        shrink = min(axis.scale, 1.0) if self.antialias else 1.0
        radius = int(np.ceil(reach / shrink))
        cells = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - radius, radius + 1)
        weights = self._kernel((cells - at[:, None]) * shrink)
        if self.exclude_outside:
            weights = np.where((cells < 0) | (cells >= axis.size), 0, weights)
        total = weights.sum(axis=1, keepdims=True)
        return cells.clip(0, axis.size - 1), weights / np.where(total == 0, 1, total)

    def _kernel(self, distance: np.ndarray) -> np.ndarray:
        """The weight of a cell at a distance."""
        x = np.abs(distance)
        if self.mode == "linear":
            return np.maximum(1 - x, 0)
        a = self.cubic
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    def outside(self, axis: Axis) -> np.ndarray:
        """Which outputs lie beyond the input."""
        at = self.places(axis)
        return (at < 0) | (at > axis.size - 1)
