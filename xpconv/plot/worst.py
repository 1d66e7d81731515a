"""The images that a network gets most wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from xpconv.errors import message
from xpconv.plot import canvas

_WIDTH, _WIDE, _LONG = 1.45, 2.2, 10  # inches of a tile, and of one with room for class names of more characters
_SIZE = 8.0  # of captions, in points


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

    Below the title each image has its true class and the answer, with what the network gave each of them: the less it
    gave the true one, the larger the loss. Names that are too long for a tile are shortened.

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
        title = f"{wrong} of {len(images)} test images misclassified"
        title += f": the {len(worst)} worst" if wrong > len(worst) else ""
        title += "\ntrue class → answer, with their probabilities"
    else:
        title = f"No mistake among {len(images)} test images: the {len(worst)} least certain"

    shown = {*labels[worst].tolist(), *answers[worst].tolist()}
    wide = max((len(names[i]) for i in shown), default=0) > _LONG
    rows = max(1, math.ceil(len(worst) / (4 if wide else 6)))
    columns = max(1, math.ceil(len(worst) / rows))
    tile = _WIDE if wide else _WIDTH
    figure = canvas.figure(max(tile * columns, 3.6), 1.67 * rows + 0.5)
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    for at, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        canvas.frame(axes, visible=at < len(worst))
        if at < len(worst):
            i = worst[at]
            axes.imshow(_picture(images[i], low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            classes = (labels[i], answers[i]) if wrong else (answers[i],)
            told = [(names[c], f"({probabilities[i, c]:.2f})") for c in classes]
            room = canvas.Room(figure, (tile - 0.14) * 72, _SIZE)
            axes.set_title(_caption(told, room), fontsize=_SIZE, color=canvas.INK, pad=4, parse_math=False)
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


def _caption(told: list[tuple[str, str]], room: canvas.Room) -> str:
    """Classes with their probabilities: on one line where they have room, else a line each, of shortened names."""
    one = " → ".join(f"{name} {probability}" for name, probability in told)
    if room.holds(one):
        return one
    arrows = ["", "→ "]
    lines = zip(arrows, told, strict=False)
    return "\n".join(room.shortened(arrow, name, f" {probability}") for arrow, (name, probability) in lines)
