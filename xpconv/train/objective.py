"""What is to be made small: a loss of outputs and targets, and where targets are class labels, the accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xpconv import ops
from xpconv.backend import Array, backend_of, cast, namespace, to_numpy
from xpconv.derivatives import vjp
from xpconv.dispatch import OPS
from xpconv.errors import describe_all, dtype_name, message
from xpconv.kinds import PARTS, dtype_kind
from xpconv.runtime import made

Loss = str | Callable[..., Any]

# Losses by name, and those whose targets are numbers to come close to, whatever dtype they are given in.
_NAMED = {loss.__name__: loss for loss in (ops.softmax_cross_entropy, ops.mse, ops.binary_cross_entropy_with_logits)}
_OF_NUMBERS = (ops.mse, ops.binary_cross_entropy_with_logits)


class Evaluation(NamedTuple):
    """Mean loss, and the share of labels that got the largest output; `None` where targets are not class labels."""

    loss: float
    accuracy: float | None


class Objective:
    """A loss by its name, as an op, or as a function of one's own; `functools.partial` binds options to one."""

    def __init__(self, subject: str, loss: Loss) -> None:
        if isinstance(loss, str) and loss not in _NAMED:
            known = f"known: {', '.join(_NAMED)}; an op, or a function of one's own, may be passed too."
            raise ValueError(message(subject, f"loss {loss!r} is not known.", "", known))
        self.op: Any = _NAMED[loss] if isinstance(loss, str) else loss
        self.options: dict[str, Any] = {}
        if isinstance(loss, partial) and _is_op(loss.func):
            self.op, self.options = loss.func, loss.keywords
        if not callable(self.op) or isinstance(self.op, type):
            rule = "the loss must be a name, an op, or a function of (outputs, targets)."
            raise TypeError(message(subject, rule, f"given: loss={loss!r}"))
        self.subject, self.own = subject, not _is_op(self.op)
        if "reduction" in self.options and not self.own:
            raise ValueError(message(subject, "the loss must be the mean over a batch.", f"given: {self.options}"))

    @property
    def of_shares(self) -> bool:
        """Whether the targets are probabilities."""
        return self.op is ops.binary_cross_entropy_with_logits

    @property
    def of_numbers(self) -> bool:
        """Whether the loss measures how far numbers of one shape lie apart."""
        return self.op in _OF_NUMBERS

    def takes_labels(self, targets: Array) -> bool:
        """Whether the targets are integers that stay such."""
        integers = dtype_kind(targets.dtype) == "i"
        return self.op is ops.softmax_cross_entropy or (integers and not self.of_numbers)

    def value(self, outputs: Array, targets: Array) -> Array:
        """The loss, one number on the device."""
        return self._told(outputs, targets)[0] if self.own else self.op(outputs, targets, **self.options)

    def gradient(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """The loss and its gradient in the outputs."""
        if self.own:
            return self._told(outputs, targets)
        loss, pullback = vjp(self.op, outputs, targets, needs=(True, False), **self.options)
        return loss, pullback(namespace(loss).ones_like(loss))[0]

    def _told(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """What a function of one's own returns, in the outputs' dtype."""
        told = self.op(outputs, targets, **self.options)
        loss, slope = told if isinstance(told, tuple) and len(told) == 2 else (told, None)
        if getattr(slope, "shape", None) != outputs.shape or math.prod(getattr(loss, "shape", ())) != 1:
            rule = "a loss of one's own must return the mean loss, one number, and its gradient in the outputs."
            evidence = describe_all(outputs=outputs, loss=loss, gradient=slope)
            raise TypeError(message(self.subject, rule, evidence))
        place, dtype = backend_of(outputs), dtype_name(outputs.dtype)
        number = place.asarray(loss, PARTS.get(dtype, dtype))
        return place.xp.reshape(number, ()), cast(slope, outputs.dtype)

    def right(self, outputs: Array, targets: Array) -> Array:
        """How many labels got the largest output, one number on the device."""
        xp = namespace(outputs)
        if dtype_name(outputs.dtype) == "bfloat16":  # of which CuPy has no argmax
            outputs = cast(outputs, xp.float32)
        return made(lambda: xp.asarray(xp.sum(cast(xp.argmax(outputs, axis=-1) == targets, xp.int64))))


def _is_op(function: object) -> bool:
    return isinstance(function, Hashable) and function in OPS


class _Numbers:
    """Numbers of the device, without axes: fetched when they are asked for, in one transfer, and each of them once."""

    def __init__(self) -> None:
        self._there: list[Array] = []
        self._here = np.empty(0)

    def add(self, number: Array) -> None:
        self._there.append(number)

    def fetched(self) -> np.ndarray:
        """All of them, in double precision."""
        if self._there:
            new = to_numpy(namespace(self._there[0]).stack(self._there))
            self._here, self._there = np.concatenate((self._here, new)), []
        return self._here


class Tally:
    """Losses and right answers of batches. They stay on the device until `result`, so that no step waits for them."""

    def __init__(self) -> None:
        self._losses, self._right = _Numbers(), _Numbers()
        self._samples: list[int] = []
        self._labels = 0

    def add(self, loss: Array, right: Array | None, targets: Array) -> None:
        """Note a batch: its mean loss, and of labels how many got the largest output."""
        self._losses.add(loss)
        self._samples.append(targets.shape[0])
        if right is not None:
            self._right.add(right)
            self._labels += math.prod(targets.shape)

    def result(self) -> Evaluation:
        """Means over all samples noted."""
        loss = float(np.average(self._losses.fetched(), weights=self._samples))
        return Evaluation(loss, int(self._right.fetched().sum()) / self._labels if self._labels else None)
