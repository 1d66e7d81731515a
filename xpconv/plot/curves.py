"""Learning curves: loss and accuracy against the epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.plot import canvas


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
    axes.set_title(name, loc="left", color=canvas.INK, fontsize=11)
    axes.set_xlabel("epoch", color=canvas.INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(color=canvas.FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.FAINT)
    axes.tick_params(colors=canvas.INK, length=0)
    axes.margins(x=0.03, y=0.08)
    _label_ends(axes, ends)
    if not ends and any(values is not None and len(values) for values in curves.values()):
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, color=canvas.INK, ha="center", va="center")


def _label_ends(axes: Any, ends: list[tuple[int, float, str, str]]) -> None:
    """The curves' names at their last points, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = 0.07 * (high - low)
    ends = sorted(ends, key=lambda end: end[1])
    places = [y for _, y, _, _ in ends]
    if len(places) == 2 and places[1] - places[0] < apart:
        middle = sum(places) / 2
        places = [middle - apart / 2, middle + apart / 2]
    for (x, y, label, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            f"{label} {y:.2g}" if abs(y) < 0.1 else f"{label} {y:.3f}",
            (x, place),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
