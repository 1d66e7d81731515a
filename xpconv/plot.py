"""Pictures of a training run: learning curves, first-layer filters, worst mistakes.

They take NumPy arrays, draw on a canvas of their own (pyplot's state is left alone) and replace the file whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.atomic import replacing
from xpconv.errors import describe, message

# Two colours of the Okabe-Ito palette, told apart with every kind of colour vision.
_TRAINING, _VALIDATION = "#0072B2", "#D55E00"
_INK, _FAINT = "#333333", "#DDDDDD"
_DPI = 150


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
    figure = _figure(4.5 * len(panels), 3.4)
    for axes, (name, training, validation) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _curve_panel(axes, name, {"training": training, validation_name: validation})
    _write(figure, path)


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

    figure = _figure(0.75 * max(columns, 5) + (0 if coloured else 0.9), (0.75 * kh / kw) * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    image = None
    for tile, axes in enumerate(grid.flat):
        o, c = divmod(tile, shown_channels)
        _frame(axes, visible=o < shown_kernels)
        if o < shown_kernels:
            picture = 0.5 + w[:, :, :, o] / (2 * largest) if coloured else w[:, :, c, o]
            image = axes.imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    if image is not None and not coloured:
        bar = figure.colorbar(
            image, ax=grid, shrink=min(1.0, 2.2 / (0.75 * rows)), aspect=14, ticks=[-largest, 0, largest]
        )
        bar.ax.set_yticklabels([f"−{largest:.2g}", "0", f"{largest:.2g}"], color=_INK)
        bar.outline.set_visible(False)
    figure.suptitle(
        _filters_title((kh, kw), kernels, channels, shown_kernels, shown_channels, single), color=_INK, fontsize=10
    )
    _write(figure, path)


def mistakes(
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    count: int = 24,
) -> None:
    """The misclassified images with the largest loss, as a PNG; without any, the least certain of the right ones.

    Parameters
    ----------
    path : path-like
        The PNG file; replaced whole.
    images : array, (N, H, W, C)
        Drawn grey, or in colour for three channels; of any other number the first is drawn.
    labels : integer array, (N,)
        The true classes.
    probabilities : array, (N, classes)
        What the network answered; the loss is -log of the true class's.
    class_names : sequence of str, optional
        Default: the numbers.
    count : int
        How many images at most.

    Raises
    ------
    ValueError
        When the shapes do not fit together.

    Examples
    --------
    >>> import tempfile, numpy as np, xpconv.plot
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     xpconv.plot.mistakes(f"{folder}/m.png", np.eye(8)[None, :, :, None], np.array([1]), np.array([[0.9, 0.1]]))
    """
    if (
        images.ndim != 4
        or labels.shape != images.shape[:1]
        or probabilities.ndim != 2
        or len(probabilities) != len(images)
    ):
        raise ValueError(
            message(
                "mistakes",
                "needs images (N, H, W, C), labels (N,) and probabilities (N, classes) of one N.",
                f"images {images.shape} · labels {labels.shape} · probabilities {probabilities.shape}",
            )
        )
    names = list(class_names) if class_names is not None else [str(i) for i in range(probabilities.shape[1])]
    answers = probabilities.argmax(axis=1)
    worst, wrong = _worst(labels, answers, probabilities, count)
    if not len(worst):
        title = "No test images"
    elif wrong:
        title = f"{wrong} of {len(images)} test images misclassified" + (
            f": the {len(worst)} worst" if wrong > len(worst) else ""
        )
    else:
        title = f"No mistake among {len(images)} test images: the {len(worst)} least certain"

    rows = max(1, math.ceil(len(worst) / 6))
    columns = max(1, math.ceil(len(worst) / rows))
    figure = _figure(max(1.45 * columns, 3.6), 1.67 * rows + 0.4)
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    for at, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        _frame(axes, visible=at < len(worst))
        if at < len(worst):
            i = worst[at]
            certainty = f"({probabilities[i, answers[i]]:.2f})"
            axes.imshow(_picture(images[i], low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            caption = (
                f"true {names[labels[i]]} → {names[answers[i]]} {certainty}"
                if wrong
                else f"{names[labels[i]]} {certainty}"
            )
            axes.set_title(_folded(caption), fontsize=8, color=_INK, pad=4, parse_math=False)
    figure.suptitle(title, color=_INK, fontsize=10)
    _write(figure, path)


def _curve_panel(axes: Any, name: str, curves: dict[str, Sequence[float] | None]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = []
    for (label, values), colour in zip(curves.items(), (_TRAINING, _VALIDATION), strict=True):
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
    axes.set_title(name, loc="left", color=_INK, fontsize=11)
    axes.set_xlabel("epoch", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, length=0)
    axes.margins(x=0.03, y=0.08)
    _label_ends(axes, ends)
    if not ends and any(values is not None and len(values) for values in curves.values()):
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, color=_INK, ha="center", va="center")


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


def _filters_title(
    size: tuple[int, int], kernels: int, channels: int, shown: int, shown_channels: int, single: bool
) -> str:
    of = f"{shown} of {kernels}" if shown < kernels else f"{kernels}"
    title = f"First convolution: {of} kernel{'s' * (kernels != 1)} {size[0]}×{size[1]}"
    if single:
        return title
    return title + f"\none per row; {shown_channels} of {channels} input channels across"


def _worst(labels: np.ndarray, answers: np.ndarray, probabilities: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Indices in order of falling loss, and how many mistakes there are; of the right ones where there is none."""
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    order = np.argsort(truth, kind="stable")  # the loss falls as the true class's probability rises
    wrong = order[answers[order] != labels[order]]
    return (wrong if len(wrong) else order)[:count], len(wrong)


def _picture(image: np.ndarray, low: float, high: float) -> np.ndarray:
    shown = image if image.shape[-1] == 3 else image[..., 0]
    return np.clip((shown - low) / ((high - low) or 1.0), 0.0, 1.0)


def _folded(caption: str) -> str:
    """On two lines where class names are long."""
    if len(caption) <= 20:
        return caption
    first, arrow, rest = caption.partition(" → ")
    return f"{first}\n→ {rest}" if arrow else caption.replace(" (", "\n(")


def _frame(axes: Any, *, visible: bool) -> None:
    """A tile without ticks, outlined, so that its pale cells end somewhere."""
    axes.set_visible(visible)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(_FAINT)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.07, h_pad=0.07, wspace=0.0, hspace=0.0)  # inches around each panel
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=_DPI)
