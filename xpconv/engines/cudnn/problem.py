"""What a plan is made for: every argument that matters, as one value to look plans up by."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xpconv.backend import HALVES, Array
from xpconv.engines.cudnn.layouts import NCHW, NHWC
from xpconv.errors import dtype_name
from xpconv.settings import current
from xpconv.window import Window

Dims = tuple[int, ...]


class Problem(NamedTuple):
    """One direction of a convolution and what is fused to it; operands are contiguous: shapes and layout tell all."""

    direction: str  # fprop, dgrad or wgrad
    dtype: str
    images: int
    channels: int  # of x; its groups share them
    outputs: int  # channels of y
    groups: int
    window: Window
    scale: bool  # then it and the bias are float32
    bias: bool
    residual: bool
    activation: str | None
    keep_sums: bool
    precision: str
    deterministic: bool
    workspace_limit: int
    autotune: bool
    device: int
    layout: str = NHWC  # that of all operands; ours are NHWC, so that anything else is paid for with copies

    @property
    def x(self) -> Dims:
        """Dimensions in the library's order: (N, C, *size), of at least two spatial axes."""
        return (self.images, self.channels, *self.spatial(self.window.size, 1))

    @property
    def w(self) -> Dims:
        """(O, C / groups, *kernel)."""
        return (self.outputs, self.channels // self.groups, *self.spatial(self.window.kernel, 1))

    @property
    def y(self) -> Dims:
        """(N, O, *out)."""
        return (self.images, self.outputs, *self.spatial(self.window.out, 1))

    def spatial(self, values: Dims, unit: int) -> Dims:
        """One value per spatial axis; one axis becomes two, of which the first does nothing."""
        return (unit, *values) if len(values) == 1 else values

    @property
    def alone(self) -> Problem:
        """The convolution with nothing fused to it but the bias."""
        return self._replace(residual=False, activation=None, keep_sums=False)

    @property
    def lesser(self) -> tuple[Problem, ...]:
        """The problem with less and less fused to it; none in half precision, which would be rounded in between."""
        less = () if self.dtype in HALVES else (self.alone, self.alone._replace(bias=False))
        return tuple(problem for problem in dict.fromkeys(less) if problem != self)

    @property
    def layouts(self) -> tuple[Problem, ...]:
        """The problem in each layout that measuring may find the faster one, ours first.

        In true float32 and in float64 the library itself turns NHWC for many of its plans. A residual is ours, and
        added in NHWC alone.
        """
        exact = self.dtype == "float64" or (self.dtype == "float32" and self.precision == "ieee")
        return (self, (self.alone if self.residual else self)._replace(layout=NCHW)) if exact else (self,)

    @property
    def copies(self) -> int:
        """Bytes of the images that are copied for its layout; weights and their gradient are turned for either."""
        if self.layout == NHWC:
            return 0
        numbers = math.prod(self.x) + math.prod(self.y) * (1 + self.keep_sums)
        return numbers * {"float32": 4, "float64": 8}[self.dtype]


def fprop_problem(x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> Problem:
    """y from x and w, with an epilogue."""
    keep = epilogue.keep_sums and epilogue.activation is not None
    vectors = (epilogue.scale is not None, epilogue.bias is not None)
    fused = (*vectors, epilogue.residual is not None, epilogue.activation, keep)
    return _problem("fprop", x, x.shape[-1], w.shape[-1], groups, window, fused)


def dgrad_problem(
    dy: Array, w: Array, *, window: Window, groups: int, bias: Array | None, residual: Array | None
) -> Problem:
    """dx from dy and w, with a bias and a residual."""
    fused = (False, bias is not None, residual is not None, None, False)
    return _problem("dgrad", dy, w.shape[-2] * groups, w.shape[-1], groups, window, fused)


def wgrad_problem(x: Array, dy: Array, *, window: Window, groups: int, w_shape: Dims) -> Problem:
    """dw from x and dy."""
    return _problem("wgrad", x, x.shape[-1], w_shape[-1], groups, window, (False, False, False, None, False))


def _problem(
    direction: str,
    array: Array,
    channels: int,
    outputs: int,
    groups: int,
    window: Window,
    fused: tuple[bool, bool, bool, str | None, bool],
) -> Problem:
    s = current()
    return Problem(
        direction,
        dtype_name(array.dtype),
        array.shape[0],
        channels,
        outputs,
        groups,
        window,
        *fused,
        s.precision,
        s.deterministic,
        s.workspace_limit,
        s.autotune,
        array.data.device_id,
    )
