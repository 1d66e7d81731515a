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


class Room:
    """How much text of a size has room in so many points."""

    def __init__(self, drawn: Any, width: float, size: float) -> None:
        from matplotlib.font_manager import FontProperties

        self.renderer, self.font = drawn.canvas.get_renderer(), FontProperties(size=size)
        self.width = width * drawn.dpi / 72

    def holds(self, text: str) -> bool:
        """Whether the text has room on one line."""
        return bool(self.renderer.get_text_width_height_descent(text, self.font, ismath=False)[0] <= self.width)

    def shortened(self, before: str, text: str, after: str) -> str:
        """All three on one line, the one between without its middle where it has to be: names differ at both ends."""
        whole, kept = before + text + after, len(text)
        while kept and not self.holds(whole):
            kept -= 1
            whole = f"{before}{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}{after}"
        return whole


def write(drawn: Any, path: str | os.PathLike[str]) -> None:
    """The figure as a PNG, which replaces an older one whole."""
    with replacing(path) as beside:
        drawn.savefig(beside, format="png", dpi=DPI)
