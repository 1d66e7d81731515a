"""Data on its way to a network: checked once on the host, moved to where the network is, handed out in batches."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpconv.arguments import integer
from xpconv.arrays import check_array
from xpconv.backend import Array, Backend, backend_of, get, to_numpy
from xpconv.errors import describe, message
from xpconv.kinds import dtype_kind
from xpconv.nn import Module
from xpconv.runtime import Rows, runtime_of, taken
from xpconv.settings import current
from xpconv.train.common import check_part, told_faults
from xpconv.train.objective import Objective
from xpconv.train.targets import check_count, check_real, check_targets

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
        check_count(subject, images, targets)
        self.images = images_for(subject, net, images)
        outputs = net(self.images.first())  # makes what the network has left open, and says how many classes there are
        self.labelled = check_targets(subject, targets, outputs, objective)
        integers = objective.takes_labels(targets)
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
    given, images = images, array_of(subject, "images", images)
    if dtype_kind(images.dtype) == "?":
        raise TypeError(message(subject, "images must be numbers.", *_not_numbers(given, images)))
    parameters = net.parameters().values()
    dtype = next((p.dtype for p in parameters if p.dtype is not None), None)
    dtype = dtype or "float32"
    check_real(subject, "images", images, dtype)
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
        except ValueError as error:
            rule, remedy = (
                f"{name} must all be of one shape.",
                "pad or crop them to one size, or give each size a call.",
            )
            raise ValueError(message(subject, rule, _shapes(given) or str(error), remedy)) from error
    check_array(subject, name, given)
    return given


def _shapes(parts: Any) -> str:
    """The shapes of what makes no array, those that differ once each."""
    try:
        return f"given: {' and '.join(map(str, dict.fromkeys(map(np.shape, parts))))}"
    except ValueError:  # parts that make none themselves
        return ""


def _not_numbers(given: Any, images: np.ndarray) -> tuple[str, str]:
    """What was given for images and holds no numbers, and what to do about it."""
    if given is None:
        return "given: None", "an array (N, H, W, C) is wanted."
    first = images.ravel()[:1].tolist()
    if first and isinstance(first[0], (str, os.PathLike)):
        remedy = "a file becomes a batch of one with np.asarray(PIL.Image.open(path), 'float32')[None] / 255."
        return f"given: {str(first[0])!r}{' and others' * (images.size > 1)}", remedy
    return describe("images", images) if images.ndim else f"given: of type {type(given).__name__}", ""
