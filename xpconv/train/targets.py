"""What targets must be like, beside images and what the network gives of them: judged here for `fit` and `Step`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpconv.backend import Array, to_numpy
from xpconv.errors import describe, describe_all, dtype_name, message
from xpconv.kinds import dtype_kind
from xpconv.train.common import label_remedy, told_labels
from xpconv.train.objective import Objective


class Outputs(NamedTuple):
    """What of a network's outputs says which targets they are for: of how many images does not matter."""

    shape: tuple[int, ...]
    dtype: Any


def check_count(subject: str, images: Any, targets: Any) -> None:
    """Refuse what is no target for each image, or none at all."""
    if not images.ndim or not targets.ndim or images.shape[0] != targets.shape[0] or not images.shape[0]:
        rule = "needs as many labels as images, and at least one."
        raise ValueError(message(subject, rule, describe_all(images=images, labels=targets)))


def check_targets(
    subject: str, targets: Any, outputs: Array | Outputs, objective: Objective, *, look: bool = True
) -> bool:
    """Refuse targets that the loss does not take, and tell whether they are class labels.

    Without a ``look`` at their numbers, which waits for a device that has them, they are judged by shape and dtype.
    """
    if not objective.takes_labels(targets):
        _check_numbers(subject, targets, outputs, objective, look)
        return False
    if _are_labels(targets, outputs, look):
        return True
    if objective.own:  # which may leave labels out, or want others
        return False
    raise _unfit_labels(subject, to_numpy(targets), outputs)


def check_real(subject: str, name: str, array: Any, dtype: str) -> None:
    """Refuse a cast that would drop imaginary parts."""
    if dtype_kind(array.dtype) == "c" and not dtype.startswith("complex"):
        rule = f"{name} are complex and the network is {dtype}: the imaginary parts would be lost."
        remedy = "make the network complex, net.to(dtype='complex64'), or give it real and imaginary parts as channels."
        raise TypeError(message(subject, rule, describe(name, array), remedy))


def _check_numbers(subject: str, targets: Any, outputs: Array | Outputs, objective: Objective, look: bool) -> None:
    """Targets to come close to, of the outputs' shape; a loss of one's own may want others."""
    if dtype_kind(targets.dtype) == "?":
        raise TypeError(message(subject, "targets must be numbers.", describe("targets", targets)))
    check_real(subject, "targets", targets, dtype_name(outputs.dtype))
    expected = (targets.shape[0], *outputs.shape[1:])
    if objective.of_numbers and tuple(targets.shape) != expected:
        evidence = f"{describe('targets', targets)} · outputs (N, {', '.join(map(str, outputs.shape[1:]))})"
        remedy = "an axis of 1 comes with targets[..., None]." if (*targets.shape, 1) == expected else ""
        raise ValueError(message(subject, f"targets must have shape {expected}.", evidence, remedy))
    if objective.of_shares and look:
        numbers = to_numpy(targets)
        least, most = numbers.min(initial=0), numbers.max(initial=1)
        if least < 0 or most > 1:
            remedy = "masks of 0 and 255 become such by / 255, labels of -1 and 1 by (targets + 1) / 2."
            rule, evidence = "targets of this loss must lie in 0..1.", f"they lie in {least:g}..{most:g}"
            raise ValueError(message(subject, rule, evidence, remedy))


def _are_labels(targets: Any, outputs: Array | Outputs, look: bool) -> bool:
    """Whether these are class labels for such outputs: asked before each step, so in a few microseconds."""
    if dtype_kind(targets.dtype) != "i" or tuple(targets.shape[1:]) != tuple(outputs.shape[1:-1]):
        return False
    if not look:
        return True
    numbers = to_numpy(targets)
    return bool(
        np.minimum.reduce(numbers, axis=None) >= 0 and np.maximum.reduce(numbers, axis=None) < outputs.shape[-1]
    )


def _unfit_labels(subject: str, labels: np.ndarray, outputs: Array | Outputs) -> ValueError:
    """Why these are no labels for such outputs; on the device, a wrong one would only make the loss nan."""
    expected = (labels.shape[0], *outputs.shape[1:-1])
    remedy = label_remedy(labels, len(expected))
    if labels.dtype.kind not in "iu":
        return ValueError(message(subject, "labels must be integers.", told_labels(labels), remedy))
    if labels.shape != expected:
        evidence = f"{describe('labels', labels)} · outputs (N, {', '.join(map(str, outputs.shape[1:]))})"
        fits = labels.ndim == len(expected) + 1
        return ValueError(message(subject, f"labels must have shape {expected}.", evidence, remedy if fits else ""))
    wrong = np.flatnonzero((labels < 0) | (labels >= outputs.shape[-1]))
    at = np.unravel_index(wrong[0], labels.shape)
    rule = f"labels must lie in 0..{outputs.shape[-1] - 1}; found {labels[at]} at index {', '.join(map(str, at))}."
    evidence = f"{wrong.size} of {labels.size} labels are outside"
    remedy = "give the network an output per class, or number classes from 0."
    return ValueError(message(subject, rule, evidence, remedy))
