"""Learning curves: loss and accuracy against the epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.plot import canvas

_DECADES = 1e3  # how far losses lie apart where their axis is logarithmic


def learning_curves(
    path: str | os.PathLike[str],
    *,
    loss: Sequence[float],
    accuracy: Sequence[float] | None = None,
    validation_loss: Sequence[float] | None = None,
    validation_accuracy: Sequence[float] | None = None,
    validation_name: str = "validation",
) -> None:
    """Loss and accuracy against the epoch, training and validation, as a PNG.

    Parameters
    ----------
    path : path-like
        The PNG file; replaced whole.
    loss, accuracy, validation_loss, validation_accuracy : sequence of float, one per epoch
        What was not measured is `None`, or nan in single epochs.
    validation_name : str
        What the curves of images that were not trained on are called.

    Examples
    --------
    >>> import tempfile, xpconv.plot
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     xpconv.plot.learning_curves(f"{folder}/curves.png", loss=[0.9, 0.4], validation_loss=[0.8, 0.5])
    """
    panels: list[tuple[str, Sequence[float] | None, Sequence[float] | None]] = [("loss", loss, validation_loss)]
    if accuracy is not None or validation_accuracy is not None:
        panels.append(("accuracy", accuracy, validation_accuracy))
    figure = canvas.figure(4.5 * len(panels), 3.4)
    for axes, (name, training, validation) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _curve_panel(axes, name, {"training": training, validation_name: validation})
    canvas.write(figure, path)


def _curve_panel(axes: Any, name: str, curves: dict[str, Sequence[float] | None]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = []
    for (label, values), colour in zip(curves.items(), (canvas.TRAINING, canvas.VALIDATION), strict=True):
        if values is not None and np.isfinite(np.asarray(values, dtype="float64")).any():
            y = np.asarray(values, dtype="float64")
            epochs = np.arange(1, len(y) + 1)
            axes.plot(
                epochs,
                y,
                color=colour,
                linewidth=1.8,
                marker="o",
                markersize=5 if len(y) < 3 else 3 if len(y) <= 40 else 0,
            )
            last = int(np.flatnonzero(np.isfinite(y))[-1])
            ends.append((epochs[last], y[last], label, colour))
    drawn = [y for line in axes.lines for y in line.get_ydata() if np.isfinite(y)]
    logarithmic = name == "loss" and bool(drawn) and 0 < min(drawn) < max(drawn) / _DECADES
    title = f"{name}, logarithmic" if logarithmic else name
    axes.set_title(title, loc="left", color=canvas.INK, fontsize=11)
    axes.set_xlabel("epoch", color=canvas.INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(color=canvas.FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.FAINT)
    axes.tick_params(colors=canvas.INK, length=0, which="both")
    axes.margins(x=0.03, y=0.08)
    if logarithmic:
        axes.set_yscale("log")
    elif drawn:
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")  # without a power of ten above the axis
        _within(axes, drawn, 1.0 if name == "accuracy" else math.inf)
    _label_ends(axes, ends)
    if not drawn and any(values is not None and len(values) for values in curves.values()):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, color=canvas.INK, ha="center", va="center")


def _within(axes: Any, drawn: list[float], highest: float) -> None:
    """Keep an axis to what its numbers can be, from 0 on; what lies at its ends is drawn whole."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0) if min(drawn) >= 0 else low, min(high, highest) if max(drawn) <= highest else high)
    for line in axes.lines:
        line.set_clip_on(False)


def _written(numbers: list[float]) -> list[str]:
    """Numbers beside one another with as many decimals each: as many as show two digits of the smallest, at least 3."""
    sizes = [abs(y) for y in numbers if y]
    if sizes and (min(sizes) < 1e-5 or max(sizes) >= 1e6):
        return [f"{y:.2e}" for y in numbers]
    decimals = max(3, 1 - math.floor(math.log10(min(sizes)))) if sizes else 3
    return [f"{y:.{decimals}f}" for y in numbers]


def _label_ends(axes: Any, ends: list[tuple[int, float, str, str]]) -> None:
    """The curves' names at their last points, moved apart where they would overlap."""
    ends = sorted(ends, key=lambda end: end[1])
    places = [axes.transData.transform((0, y))[1] for _, y, _, _ in ends]
    apart = 0.07 * axes.bbox.height
    if len(places) == 2 and places[1] - places[0] < apart:
        middle = sum(places) / 2
        places = [middle - apart / 2, middle + apart / 2]
    written = _written([y for _, y, _, _ in ends])
    for (x, _, label, colour), number, place in zip(ends, written, places, strict=True):
        axes.annotate(
            f"{label} {number}",
            (x, axes.transData.inverted().transform((0, place))[1]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
