"""Augmentations: the same on every backend, and what they are told to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpconv import backend, nn, train


def test_a_shift_moves_each_image_by_whole_pixels_and_fills_with_zeros(place: str) -> None:
    images = np.random.default_rng(0).random((50, 5, 6, 2), dtype=np.float32)
    given = backend.get(place).asarray(images)
    shifted = backend.to_numpy(train.augment.random_shift(2)(given, np.random.default_rng(1)))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for i in range(50):
        ways = [
            (a, b) for a in range(5) for b in range(5) if np.array_equal(shifted[i], padded[i, a : a + 5, b : b + 6])
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) > 15
    np.testing.assert_array_equal(shifted, train.augment.random_shift(2)(images, np.random.default_rng(1)))
    np.testing.assert_array_equal(images, backend.to_numpy(given))


def test_a_flip_mirrors_about_half_of_the_images(place: str) -> None:
    images = np.random.default_rng(0).random((60, 2, 3, 1), dtype=np.float32)
    flipped = backend.to_numpy(
        train.augment.random_flip()(backend.get(place).asarray(images), np.random.default_rng(1))
    )
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert [not m for m in mirrored] == kept
    assert 15 < sum(mirrored) < 45
    np.testing.assert_array_equal(flipped, train.augment.random_flip()(images, np.random.default_rng(1)))


@pytest.mark.parametrize("pixels", [0, -1, 1.5, True])
def test_a_shift_of_no_pixels_is_refused(pixels: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"random_shift: pixels must be (an integer|at least 1)"):
        train.augment.random_shift(pixels)


def test_pixels_are_not_moved_away_from_their_labels() -> None:
    net, images = nn.Sequential(nn.Conv2d(1, 2, 1)), np.zeros((4, 6, 6, 1), dtype="float32")
    options: Any = {"epochs": 1, "batch_size": 2, "progress": False}
    with pytest.raises(ValueError, match=r"(?s)moves the pixels of images and not their labels.*labels \(4, 6, 6\)"):
        train.fit(net, (images, np.zeros((4, 6, 6), int)), augment=train.augment.random_flip(), **options)


@pytest.mark.parametrize("augment", [train.augment.random_flip(), train.augment.random_shift()])
@pytest.mark.parametrize("shape", [(4, 6, 1), (4, 6, 6, 6, 1)])
def test_only_images_are_moved(augment: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images \(N, H, W, C\)"):
        augment(np.zeros(shape), np.random.default_rng(0))


def test_what_an_augmentation_and_a_schedule_return() -> None:
    net, data = nn.Sequential(nn.Flatten(), nn.Linear(None, 2)), (np.zeros((4, 6, 6, 1)), [0, 1, 0, 1])
    options: Any = {"epochs": 1, "batch_size": 2, "progress": False}
    train.fit(net, data, augment=lambda x, rng: x + rng.normal(size=x.shape), **options)  # which is float64
    for augment, said in ((lambda x, rng: None, "None"), (lambda x, rng: x[:1], r"given \(2, .*returned \(1, ")):
        with pytest.raises(TypeError, match=rf"augment must return as many images as it was given\.\n  {said}"):
            train.fit(net, data, augment=augment, **options)
    with pytest.raises(TypeError, match=r"schedule must return a number"):
        train.fit(net, data, schedule=lambda step, steps: None, **options)
    with pytest.raises(TypeError, match=r"(?s)schedule: too many .*schedule is a function of \(step, total_steps\)"):
        train.fit(net, data, schedule=lambda epoch: 1.0, **options)


def test_an_augmentation_that_takes_something_else() -> None:
    net, data = nn.Sequential(nn.Flatten(), nn.Linear(None, 2)), (np.zeros((4, 6, 6, 1)), [0, 1, 0, 1])
    for augment in (train.augment.random_flip, lambda images: images):
        with pytest.raises(TypeError, match=r"augment: too many .*\n.*\n  augment is a function of \(images, rng\)"):
            train.fit(net, data, epochs=1, batch_size=2, augment=augment, progress=False)
