"""What a side offers to be timed, and what helps it to: the one thing that sides and devices both know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.backend import library

RECORDED = ", "  # between the name of a candidate and what its recording is called, where it is replayed
UNTIL_REPLAYED = 4  # calls: two as usual, one that is recorded, one in which a replay may be put to the proof


class NotOfferedError(Exception):
    """A case that a side does not have, and why."""


@dataclass(frozen=True)
class Candidate:
    """One way in which a side does a case.

    ``call`` does all of it and answers a fresh result; ``wait`` returns when the device has finished that result;
    ``answers`` gives what `truth` judges, by name (``y``, or ``dx``, ``dw``, ...), as NumPy arrays in xpconv's layout.
    """

    name: str
    call: Callable[[], Any]
    answers: Callable[[], dict[str, np.ndarray]]
    wait: Callable[[Any], None] = lambda result: None
    note: str = ""  # such as the engine that serves it
    within: Callable[[], AbstractContextManager[None]] = nullcontext  # a block in which it is called


def waiting(x: Any) -> Callable[[Any], None]:
    """A function that returns when the device of ``x`` has done all that was asked of it; on the CPU it has."""
    if library(x) == "cupy":
        return lambda result: x.device.synchronize()
    if library(x) == "torch" and x.device.type == "cuda":
        import torch

        return lambda result: torch.cuda.synchronize(x.device)
    return lambda result: None


def gradients(case: Any, grads: Sequence[Any], to_numpy: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients by name, ``dx`` for that of x, in the order of the op's array parameters; `None` ones are left out."""
    first = "logits" if case.layer.op == "softmax_cross_entropy" else "x"
    names = [first, *case.parameters]
    return {f"d{name}": to_numpy(g) for name, g in zip(names, grads, strict=False) if g is not None}
