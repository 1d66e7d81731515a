"""The kernels of a first layer as tiles."""

from __future__ import annotations

import math
import os

import numpy as np

from xpconv.errors import describe, message
from xpconv.plot import canvas


def filters(path: str | os.PathLike[str], w: np.ndarray) -> None:
    """The kernels of a 2-D convolution, one tile each, as a PNG.

    Parameters
    ----------
    path : path-like
        The PNG file; replaced whole.
    w : array, (kh, kw, C, O)
        Weights. Three input channels are drawn as red, green and blue around mid-grey; otherwise each tile is one
        input channel of one kernel, in colours that diverge from white at 0. At most 64 tiles are drawn, 8 channels
        of 8 kernels; the title says so.

    Raises
    ------
    ValueError
        When w does not have four axes.

    Examples
    --------
    >>> import tempfile, numpy as np, xpconv.plot
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     xpconv.plot.filters(f"{folder}/filters.png", np.eye(9).reshape(3, 3, 1, 9))
    """
    if w.ndim != 4:
        raise ValueError(
            message("filters", "w must be the weights (kh, kw, C, O) of a 2-D convolution.", describe("w", w))
        )
    w = np.asarray(w, dtype="float64")
    kh, kw, channels, kernels = w.shape
    largest = float(np.abs(w[np.isfinite(w)]).max(initial=0.0)) or 1.0
    coloured, single = channels == 3, channels in (1, 3)
    shown_kernels, shown_channels = min(kernels, 64 if single else 8), 1 if single else min(channels, 8)
    columns = math.ceil(shown_kernels / math.ceil(shown_kernels / 8)) if single else shown_channels
    rows = math.ceil(shown_kernels * shown_channels / columns)

    figure = canvas.figure(0.75 * max(columns, 5) + (0 if coloured else 0.9), (0.75 * kh / kw) * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    image = None
    for tile, axes in enumerate(grid.flat):
        o, c = divmod(tile, shown_channels)
        canvas.frame(axes, visible=o < shown_kernels)
        if o < shown_kernels:
            picture = 0.5 + w[:, :, :, o] / (2 * largest) if coloured else w[:, :, c, o]
            image = axes.imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    if image is not None and not coloured:
        bar = figure.colorbar(
            image, ax=grid, shrink=min(1.0, 2.2 / (0.75 * rows)), aspect=14, ticks=[-largest, 0, largest]
        )
        size = f"{largest:.2g}" if largest < 100 else f"{largest:,.0f}" if largest < 1e6 else f"{largest:.1e}"
        bar.ax.set_yticklabels([f"−{size}", "0", size], color=canvas.INK)
        bar.outline.set_visible(False)
    figure.suptitle(
        _filters_title((kh, kw), kernels, channels, shown_kernels, shown_channels, single),
        color=canvas.INK,
        fontsize=10,
    )
    canvas.write(figure, path)


def _filters_title(
    size: tuple[int, int], kernels: int, channels: int, shown: int, shown_channels: int, single: bool
) -> str:
    of = f"{shown} of {kernels}" if shown < kernels else f"{kernels}"
    title = f"First convolution: {of} kernel{'s' * (kernels != 1)} {size[0]}×{size[1]}"
    if single:
        return title
    return title + f"\none per row; {shown_channels} of {channels} input channels across"
