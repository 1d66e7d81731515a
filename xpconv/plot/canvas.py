"""A canvas of our own, so that pyplot's state is left alone, and the colours that all pictures share."""

from __future__ import annotations

import os
from typing import Any

from xpconv.atomic import replacing

# Two colours of the Okabe-Ito palette, told apart with every kind of colour vision.
TRAINING, VALIDATION = "#0072B2", "#D55E00"
INK, FAINT = "#333333", "#DDDDDD"
DPI = 150


def frame(axes: Any, *, visible: bool) -> None:
    """A tile without ticks, outlined, so that its pale cells end somewhere."""
    axes.set_visible(visible)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FAINT)


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), facecolor="white")
    made.set_layout_engine("constrained", w_pad=0.07, h_pad=0.07, wspace=0.0, hspace=0.0)  # inches around each panel
    FigureCanvasAgg(made)
    return made


def write(drawn: Any, path: str | os.PathLike[str]) -> None:
    """The figure as a PNG, which replaces an older one whole."""
    with replacing(path) as beside:
        drawn.savefig(beside, format="png", dpi=DPI)
