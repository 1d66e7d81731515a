"""Augmentation: functions ``augment(images, rng) -> images`` that `fit` calls on each training batch.

``images`` is the batch where the network computes, ``rng`` a `numpy.random.Generator` that depends on the seed, the
epoch and the batch alone: the same numbers are drawn on every backend. Two are one after the other as
``lambda images, rng: flip(shift(images, rng), rng)``. Labels are left as they are: to move images and a label for each
pixel alike, call the augmentation for both, each time with a generator of the same seed, in a loop of your own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpconv.arguments import integer
from xpconv.backend import Array, backend_of, cast, namespace
from xpconv.errors import describe, message

Augment = Callable[[Array, np.random.Generator], Array]


def moves_pixels(augment: object) -> bool:
    """Whether an augmentation is known to put pixels elsewhere: all that are made here do."""
    return getattr(augment, "__module__", None) == __name__


def _check_images(subject: str, images: Array) -> None:
    if images.ndim != 4:
        raise ValueError(message(subject, "takes images (N, H, W, C).", describe("images", images)))


def random_shift(pixels: int = 1) -> Augment:
    """Shift each image by up to ``pixels`` along both axes, filling with zeros.

    ``(N, H, W, C) -> (N, H, W, C)``

    Parameters
    ----------
    pixels : int
        The furthest shift, at least 1.

    Returns
    -------
    function of (images, rng)

    Raises
    ------
    ValueError, TypeError
        For a ``pixels`` below 1, or none at all.

    References
    ----------
    .. [1] C.-Y. Lee, S. Xie, P. Gallagher, Z. Zhang and Z. Tu, "Deeply-supervised nets", AISTATS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv.train import augment
    >>> image = np.eye(3, dtype="float32")[None, :, :, None]
    >>> augment.random_shift(1)(image, np.random.default_rng(0))[0, :, :, 0].tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    pixels = integer("random_shift", "pixels", pixels, least=1)

    def shift(images: Array, rng: np.random.Generator) -> Array:
        _check_images("random_shift", images)
        xp, place = namespace(images), backend_of(images)
        n, height, width, channels = images.shape
        tall, wide = height + 2 * pixels, width + 2 * pixels
        padded = xp.zeros((n, tall, wide, channels), dtype=images.dtype, device=images.device)
        padded[:, pixels : pixels + height, pixels : pixels + width, :] = images
        # Each image reads the padded one from its own corner: row numbers into (n * tall * wide, channels).
        corners = rng.integers(0, 2 * pixels + 1, size=(n, 2))
        first = np.arange(n) * (tall * wide) + corners[:, 0] * wide + corners[:, 1]
        within = (np.arange(height)[:, None] * wide + np.arange(width)).ravel()
        cells = place.asarray(first, "int64")[:, None] + place.asarray(within, "int64")
        rows = xp.take(xp.reshape(padded, (n * tall * wide, channels)), xp.reshape(cells, (-1,)), axis=0)
        return xp.reshape(rows, (n, height, width, channels))

    return shift


def random_flip() -> Augment:
    """Mirror each image left to right, or leave it, with even chances.

    ``(N, H, W, C) -> (N, H, W, C)``

    Returns
    -------
    function of (images, rng)

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv.train import augment
    >>> image = np.asarray([1.0, 2.0], "float32").reshape(1, 1, 2, 1)
    >>> augment.random_flip()(image, np.random.default_rng(2)).ravel().tolist()
    [2.0, 1.0]
    """

    def flip(images: Array, rng: np.random.Generator) -> Array:
        _check_images("random_flip", images)
        xp = namespace(images)
        mirrored = backend_of(images).asarray(rng.random(images.shape[0]) < 0.5)
        chosen = xp.where(xp.reshape(mirrored, (-1, 1, 1, 1)), xp.flip(images, axis=2), images)
        return cast(chosen, images.dtype)  # CuPy's where makes float32 of bfloat16

    return flip
