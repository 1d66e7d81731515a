"""Layers that change the size of images without a window: up and down sampling, borders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import Array
from xpconv.errors import message
from xpconv.nn.layer import Bound, Layer, check_arguments
from xpconv.ops import validate
from xpconv.window import Ints, Padding

_MOST_AXES = 3  # spatial ones


class Upsample(Layer):
    """The image on a finer or coarser grid, ``(N, *spatial, C) -> (N, *size, C)``; see `ops.resize`."""

    def __init__(
        self,
        size: Ints | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        """Make the layer.

        Parameters
        ----------
        size : int or one per spatial axis, optional
            Cells of the output.
        scale_factor : number or one per spatial axis, optional
            Or what the input's size is to be multiplied by, rounded down. Positions follow from the two sizes, as with
            PyTorch's ``recompute_scale_factor=True``.
        mode : {"nearest", "nearest-exact", "bilinear"}
            ``"bilinear"`` is linear on each of 1 to 3 axes.
        align_corners : bool
            For ``"bilinear"``: whether the centres of the corner cells stay in place.

        Raises
        ------
        ValueError
            If not just one of size and scale_factor is given, or for what `ops.resize` refuses.
        """
        if (size is None) == (scale_factor is None):
            given = f"given: size={size!r}, scale_factor={scale_factor!r}"
            raise ValueError(message("Upsample", "give a size or a scale_factor, and one of them only.", given))
        several = isinstance(scale_factor, Sequence) and not isinstance(scale_factor, str)
        factors: Any = scale_factor if several else () if scale_factor is None else (scale_factor,)
        for factor in factors:
            if not 0 < validate.number("Upsample", "scale_factor", factor) < math.inf:
                rule = "scale_factor must be above 0 and finite."
                raise ValueError(message("Upsample", rule, f"given: scale_factor={scale_factor!r}"))
        x, cells = (_empty(scale_factor), 1) if size is None else (_empty(size), size)
        check_arguments(ops.resize, x, cells, mode=mode, align_corners=align_corners)
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.resize`."""
        size = self._scaled(x) if self.size is None else self.size
        return ops.resize, (x, size), {"mode": self.mode, "align_corners": self.align_corners}

    def _scaled(self, x: Array) -> tuple[int, ...]:
        """The size by the factors; axes that x lacks are left for the op to complain of."""
        spatial, given = tuple(x.shape[1:-1]), self.scale_factor
        factors = tuple(given) if isinstance(given, Sequence) else (given,) * len(spatial)
        if len(factors) != len(spatial):
            rule = f"scale_factor has {len(factors)} entries for {len(spatial)} spatial axes."
            raise ValueError(message("Upsample", rule, f"given: {given!r} · x {tuple(x.shape)}"))
        return tuple(math.floor(n * factor) for n, factor in zip(spatial, factors, strict=True))


class Pad(Layer):
    """A border around the image, ``(N, *spatial, C) -> (N, *(spatial + before + after), C)``; see `ops.pad`."""

    def __init__(self, padding: Padding, mode: str = "constant", value: float = 0.0) -> None:
        """Make the layer; the arguments are those of `ops.pad`: padding by axis, not from the last one as PyTorch's."""
        axes = len(padding) if isinstance(padding, Sequence) and not isinstance(padding, str) else 1
        if axes > _MOST_AXES:
            remedy = "axis by axis: ((top, bottom), (left, right))."
            rule = f"padding has {axes} entries, and images 1 to {_MOST_AXES} spatial axes."
            raise ValueError(message("Pad", rule, f"given: padding={padding!r}", remedy))
        check_arguments(ops.pad, _empty(padding), padding, mode=mode, value=value)
        self.padding, self.mode, self.value = padding, mode, value

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.pad`."""
        return ops.pad, (x, self.padding), {"mode": self.mode, "value": self.value}


def _empty(option: Any) -> np.ndarray:
    """An empty input with an axis for each entry of an option, as far as there may be: to judge the option by."""
    axes = len(option) if isinstance(option, Sequence) and not isinstance(option, str) else 1
    return np.empty((0, *(1 for _ in range(min(max(axes, 1), _MOST_AXES))), 1))
