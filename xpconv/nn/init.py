"""First values of weights, drawn on the host by a counter-based generator keyed by (seed, dotted name).

So they depend on nothing else: not on the order in which layers are made, not on the array library, and, being
float32 numbers in every dtype that holds them, not on the precision.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.errors import message

Init = Callable[[Any, tuple[int, ...]], np.ndarray]  # (generator, shape) -> float32 array


def generator(seed: int, name: str) -> np.random.Generator:
    """NumPy's Philox generator, keyed by a seed and the dotted name of what is drawn."""
    key = np.array([seed % 2**64, stable_hash(name)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def stable_hash(text: str) -> int:
    """64 bits that are the same in every process (`hash` of a string is not)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs that one output sums and outputs that one input reaches, of ``(*kernel, C / groups, O)``."""
    kernel = math.prod(shape[:-2])
    return kernel * math.prod(shape[-2:-1]), kernel * shape[-1]


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> np.ndarray:
    """Normal of variance 2 / fan_in, for layers before a rectifier (He et al., arXiv:1502.01852, 2015)."""
    return _normal(rng, shape, 2 / (fan_in or fans(shape)[0]))


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> np.ndarray:
    """Uniform of variance 2 / fan_in (He et al., arXiv:1502.01852, 2015)."""
    return _uniform(rng, shape, 2 / (fan_in or fans(shape)[0]))


def glorot_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> np.ndarray:
    """Normal of variance 2 / (fan_in + fan_out), before tanh or sigmoid (Glorot and Bengio, AISTATS 2010)."""
    return _normal(rng, shape, 2 / ((fan_in or fans(shape)[0]) + fans(shape)[1]))


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> np.ndarray:
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010)."""
    return _uniform(rng, shape, 2 / ((fan_in or fans(shape)[0]) + fans(shape)[1]))


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 0: biases."""
    return np.zeros(shape, dtype=np.float32)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 1: the scales of norms."""
    return np.ones(shape, dtype=np.float32)


WEIGHT_INITS = {init.__name__: init for init in (he_normal, he_uniform, glorot_normal, glorot_uniform)}


def weight_init(layer: str, name: str | None, activation: str | None) -> Callable[..., np.ndarray]:
    """The function of that name; by default He's, or Glorot's before an activation that saturates on both sides."""
    if name is None:
        name = "glorot_normal" if activation in ("sigmoid", "tanh") else "he_normal"
    if not isinstance(name, str) or name not in WEIGHT_INITS:
        raise ValueError(message(layer, f"init {name!r} is not known.", "", f"known: {', '.join(WEIGHT_INITS)}."))
    return WEIGHT_INITS[name]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(variance))


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> np.ndarray:
    limit = np.float32(math.sqrt(3 * variance))
    return (2 * rng.random(shape, dtype=np.float32) - 1) * limit
