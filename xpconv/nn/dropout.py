"""Dropout, whose masks are the same on every backend."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import Array, backend_of, library, to_numpy
from xpconv.errors import message
from xpconv.nn.init import stable_hash
from xpconv.nn.layer import Bound, Layer
from xpconv.nn.module import LayerPullback
from xpconv.ops import validate
from xpconv.runtime import also


class Dropout(Layer):
    """In training, zero each element with probability p and scale the rest by 1 / (1 - p); see `ops.dropout`.

    The mask depends on the seed given to `initialize`, the dotted name of the layer, and how often it was used in
    training before, and on nothing else. Inference leaves the input as it is.
    """

    def __init__(self, p: float = 0.5) -> None:
        """Make the layer."""
        if not 0 <= validate.number("Dropout", "p", p) < 1:
            raise ValueError(message("Dropout", f"p must be at least 0 and below 1, not {p!r}."))
        self.p = p
        self._uses: Any = None  # counted on the device, so that a captured graph draws anew each time

    def restart(self, draws: int = 0) -> None:
        """Count uses from 0 again, or go on after so many."""
        if self._uses is None:
            self._uses = np.array(draws, np.int64)  # moved to where the input is, once there is one
        else:
            self._uses[...] = draws  # where a recorded step reads it

    def draws(self) -> int:
        """How often the layer was used in training."""
        return 0 if self._uses is None else int(to_numpy(self._uses))

    def bind(self, x: Array, training: bool) -> Bound:
        """`ops.dropout`, with a key that no other layer and no other step has."""
        place, uses = backend_of(x), self._uses
        if uses is None:
            self._uses = place.xp.zeros((), dtype=place.xp.int64, device=place.device)
        elif library(uses) != place.library or uses.device != place.device:
            self._uses = place.asarray(uses)
        seed, name = self._key or (0, "")
        return ops.dropout, (x, self.p), {"key": (stable_hash(f"{seed}/{name}"), self._uses)}

    def __call__(self, x: Array) -> Array:
        """Inference: x itself."""
        return x

    def vjp(self, x: Array, training: bool = True, needs_input: bool = True) -> tuple[Array, LayerPullback]:
        """See `Module.vjp`."""
        if not training:
            return x, lambda dy: dy if needs_input else None
        result = super().vjp(x, training, needs_input)
        also(functools.partial(operator.iadd, self._uses, 1))
        return result
