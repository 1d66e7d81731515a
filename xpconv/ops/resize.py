"""Resizing the spatial axes."""

from __future__ import annotations

from xpconv.arguments import flag
from xpconv.backend import Array
from xpconv.dispatch import Call, op
from xpconv.errors import message
from xpconv.ops import validate
from xpconv.ops.adaptive import output_sizes
from xpconv.window import Ints

MODES = ("nearest", "nearest-exact", "bilinear")
_THEIRS = {
    "linear": "mode='bilinear'",
    "trilinear": "mode='bilinear'",
    "area": "ops.adaptive_avg_pool",
}


@op("x")
def resize(x: Array, output_size: Ints, *, mode: str = "nearest", align_corners: bool = False) -> Call:
    r"""Sample the spatial axes on a grid of another size.

    ``(N, *spatial, C) -> (N, *output_size, C)``

    Output i of o over n cells reads, on each axis, cell ``floor(i·n / o)`` (``"nearest"``), cell
    ``floor((i + 1/2)·n / o)`` (``"nearest-exact"``), or, weighted by nearness, the two cells about
    ``max((i + 1/2)·n / o - 1/2, 0)`` (``"bilinear"``; with ``align_corners`` about ``i·(n - 1) / (o - 1)``).

    Parameters
    ----------
    x : array, (N, *spatial, C)
        Real or complex; for the nearest modes also integer.
    output_size : int or one per spatial axis
        In cells.
    mode : {"nearest", "nearest-exact", "bilinear"}
        ``"bilinear"`` is linear on each of 1 to 3 axes. Nothing is smoothed when the output is smaller.
    align_corners : bool
        For ``"bilinear"``: whether the centres of the corner cells, rather than their outer edges, stay in place.

    Returns
    -------
    array, (N, *output_size, C), of the dtype of x

    Raises
    ------
    ValueError
        For a size below 1, an empty spatial axis, an unknown mode, or ``align_corners`` with a nearest mode.
    TypeError
        For integers with ``"bilinear"``.

    Notes
    -----
    Positions are exact fractions, where others round them in float32. Kept for the gradient: nothing but the sizes.

    References
    ----------
    .. [1] R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29, 1981.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import ops
    >>> ops.resize(np.array([[[0.0], [1.0]]]), 4, mode="bilinear")[0, :, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    validate.one_of("resize", "mode", mode, MODES, _THEIRS)
    validate.arrays("resize", "fc" if mode == "bilinear" else "fic", x=x)
    align_corners = flag("resize", "align_corners", align_corners)
    if align_corners and mode != "bilinear":
        raise ValueError(message("resize", f"align_corners has no meaning for mode {mode!r}.", "", "use 'bilinear'."))
    sizes = output_sizes("resize", x, output_size)
    return Call("resize", (x,), {"output_size": sizes, "mode": mode, "align_corners": align_corners})
