"""Data on its way to a network: checked once on the host, moved to where the network is, handed out in batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpconv.arguments import integer
from xpconv.arrays import check_array
from xpconv.backend import Array, Backend, backend_of, get, to_numpy
from xpconv.errors import describe, describe_all, dtype_name, message
from xpconv.kinds import dtype_kind
from xpconv.nn import Module
from xpconv.runtime import Rows, runtime_of, taken
from xpconv.settings import current
from xpconv.train.common import check_part, label_remedy, told_faults, told_labels
from xpconv.train.objective import Objective

# Arrays up to this many elements are moved to the network as a whole, larger ones batch by batch.
_WHOLE = 2**28
_DIGESTED = 2**22  # and about so many tell two data sets apart


class Column:
    """Images, or their targets: an array and where its batches belong."""

    def __init__(self, array: Any, place: Backend, dtype: str) -> None:
        self.place, self.dtype = place, dtype
        self._whole = np.prod(array.shape) <= _WHOLE
        self.array = place.asarray(array, dtype) if self._whole else array

    def batches(self, size: int, order: np.ndarray | None = None) -> Iterator[Array]:
        """Batches of the rows in order, the last one smaller; a single empty one of no rows."""
        n = self.array.shape[0]
        spans = [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]
        if self._whole:
            rows = None if order is None else self.place.asarray(order)
            for span in spans:
                yield taken(self.array, span if rows is None else rows[span])
        else:
            parts: list[Rows] = [span if order is None else order[span] for span in spans]
            yield from runtime_of(self.place).batches(self.array, parts, self.place, self.dtype)

    def faults(self, name: str, size: int) -> str:
        """What of the numbers is not finite, in words; a pass over all of them, a batch at a time in memory."""
        return told_faults(name, (np.isfinite(to_numpy(batch)) for batch in self.batches(size)))

    def digest(self) -> str:
        """Shape, dtype, and what tells other numbers from these: of evenly spaced rows, if all would take long."""
        n, *rest = self.array.shape
        every = max(1, n * math.prod(rest) // _DIGESTED)
        rows = to_numpy(self.place.asarray(self.array[::every, ...], self.dtype))
        return f"{(n, *rest)} {self.dtype} {hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]}"

    def first(self) -> Array:
        """A batch of the first row alone."""
        return self.place.asarray(self.array[:1, ...], self.dtype)


class Feed:
    """Images with targets, checked against the network that is to see them."""

    def __init__(self, subject: str, net: Module, data: Any, objective: Objective, batch_size: int) -> None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            whole = "pass one of its parts: (data.train_images, data.train_labels)."
            stack = "stack its parts into two arrays first; memory-mapped ones may be larger than the memory."
            remedy = whole if hasattr(data, "train_images") else stack if hasattr(data, "__iter__") else ""
            given = f"given: {type(data).__name__}"
            raise TypeError(message(subject, "data must be a pair (images, labels).", given, remedy))
        images, targets = array_of(subject, "images", data[0]), array_of(subject, "labels", data[1])
        self.batch_size = integer(subject, "batch_size", batch_size, least=1)
        if not images.ndim or not targets.ndim or images.shape[0] != targets.shape[0] or not images.shape[0]:
            rule = "needs as many labels as images, and at least one."
            raise ValueError(message(subject, rule, describe_all(images=images, labels=targets)))
        self.images = images_for(subject, net, images)
        outputs = net(self.images.first())  # makes what the network has left open, and says how many classes there are
        integers = objective.takes_labels(targets)
        misfit = _unfit_labels(subject, to_numpy(targets), outputs) if integers else None
        if misfit is not None and not objective.own:  # a loss of one's own may leave labels out, or want others
            raise misfit
        self.labelled = integers and misfit is None
        if not integers:
            _check_numbers(subject, targets, outputs, objective)
        self.targets = Column(targets, self.images.place, "int64" if integers else self.images.dtype)
        self.samples = images.shape[0]
        self.steps = -(-self.samples // self.batch_size)

    def faults(self) -> str:
        """What of the images, or of targets that are numbers, is not finite, in words; nothing where all are."""
        found = self.images.faults("images", self.batch_size)
        return found or ("" if self.labelled else self.targets.faults("targets", self.batch_size))

    def batches(self, order: np.ndarray | None = None) -> Iterator[tuple[Array, Array]]:
        """Batches of images and targets where the network is."""
        return zip(
            self.images.batches(self.batch_size, order), self.targets.batches(self.batch_size, order), strict=True
        )


def check_network(subject: str, net: object) -> None:
    """Refuse what is no network."""
    check_part(subject, "the network", net, isinstance(net, Module), "an nn.Module")


def images_for(subject: str, net: Module, images: Any) -> Column:
    """Images bound for the network: its backend and dtype, or where it has no values yet, those it will be made in."""
    check_network(subject, net)
    images = array_of(subject, "images", images)
    if dtype_kind(images.dtype) == "?":
        raise TypeError(message(subject, "images must be numbers.", describe("images", images)))
    parameters = net.parameters().values()
    dtype = next((p.dtype for p in parameters if p.dtype is not None), None)
    dtype = dtype or "float32"
    _check_real(subject, "images", images, dtype)
    return Column(images, place_of(net), dtype)


def place_of(net: object) -> Backend:
    """Where a network is, or where it will be made: on the backend in force."""
    parameters = net.parameters().values() if isinstance(net, Module) else ()
    return next((backend_of(p.value) for p in parameters if p.value is not None), None) or get(current().backend)


def array_of(subject: str, name: str, given: Any) -> Any:
    """An array as it is, once it is known to be a plain one; anything else as NumPy makes an array of it."""
    if not hasattr(given, "shape"):
        try:
            return np.asarray(given)
        except ValueError as error:  # parts of several shapes
            remedy = "pad or crop them to one size, or take a step for each size in a loop of your own."
            raise ValueError(message(subject, f"{name} must all be of one shape.", str(error), remedy)) from error
    check_array(subject, name, given)
    return given


def _check_real(subject: str, name: str, array: Any, dtype: str) -> None:
    """Refuse a cast that would drop imaginary parts."""
    if dtype_kind(array.dtype) == "c" and not dtype.startswith("complex"):
        rule = f"{name} are complex and the network is {dtype}: the imaginary parts would be lost."
        remedy = "make the network complex, net.to(dtype='complex64'), or give it real and imaginary parts as channels."
        raise TypeError(message(subject, rule, describe(name, array), remedy))


def _check_numbers(subject: str, targets: Any, outputs: Array, objective: Objective) -> None:
    """Targets to come close to, of the outputs' shape; a loss of one's own may want others."""
    if dtype_kind(targets.dtype) == "?":
        raise TypeError(message(subject, "targets must be numbers.", describe("targets", targets)))
    _check_real(subject, "targets", targets, dtype_name(outputs.dtype))
    expected = (targets.shape[0], *outputs.shape[1:])
    if objective.of_numbers and tuple(targets.shape) != expected:
        evidence = f"{describe('targets', targets)} · outputs (N, {', '.join(map(str, outputs.shape[1:]))})"
        remedy = "an axis of 1 comes with targets[..., None]." if (*targets.shape, 1) == expected else ""
        raise ValueError(message(subject, f"targets must have shape {expected}.", evidence, remedy))
    if objective.of_shares:
        numbers = to_numpy(targets)
        least, most = numbers.min(initial=0), numbers.max(initial=1)
        if least < 0 or most > 1:
            remedy = "masks of 0 and 255 become such by / 255, labels of -1 and 1 by (targets + 1) / 2."
            rule, evidence = "targets of this loss must lie in 0..1.", f"they lie in {least:g}..{most:g}"
            raise ValueError(message(subject, rule, evidence, remedy))


def _unfit_labels(subject: str, labels: np.ndarray, outputs: Array) -> ValueError | None:
    """Why labels are none that the losses take, or `None`; on the device, a wrong one would only make the loss nan."""
    expected = (labels.shape[0], *outputs.shape[1:-1])
    remedy = label_remedy(labels, len(expected))
    if labels.dtype.kind not in "iu":
        return ValueError(message(subject, "labels must be integers.", told_labels(labels), remedy))
    if labels.shape != expected:
        evidence = f"{describe('labels', labels)} · outputs (N, {', '.join(map(str, outputs.shape[1:]))})"
        fits = labels.ndim == len(expected) + 1
        return ValueError(message(subject, f"labels must have shape {expected}.", evidence, remedy if fits else ""))
    wrong = np.flatnonzero((labels < 0) | (labels >= outputs.shape[-1]))
    if wrong.size:
        at = np.unravel_index(wrong[0], labels.shape)
        place = ", ".join(map(str, at))
        rule = f"labels must lie in 0..{outputs.shape[-1] - 1}; found {labels[at]} at index {place}."
        evidence = f"{wrong.size} of {labels.size} labels are outside"
        return ValueError(
            message(subject, rule, evidence, "give the network an output per class, or number classes from 0.")
        )
    return None
