"""The images that a network gets most wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from xpconv.errors import message
from xpconv.plot import canvas


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
    figure = canvas.figure(max(1.45 * columns, 3.6), 1.67 * rows + 0.4)
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    for at, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        canvas.frame(axes, visible=at < len(worst))
        if at < len(worst):
            i = worst[at]
            certainty = f"({probabilities[i, answers[i]]:.2f})"
            axes.imshow(_picture(images[i], low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            caption = (
                f"true {names[labels[i]]} → {names[answers[i]]} {certainty}"
                if wrong
                else f"{names[labels[i]]} {certainty}"
            )
            axes.set_title(_folded(caption), fontsize=8, color=canvas.INK, pad=4, parse_math=False)
    figure.suptitle(title, color=canvas.INK, fontsize=10)
    canvas.write(figure, path)


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
