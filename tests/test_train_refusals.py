"""What `fit` refuses before its first step, and how it says so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import Seen, blobs, fit, small_net

from xpconv import nn, train

IMAGES, LABELS = blobs()
BAD_DATA: dict[str, tuple[Any, dict[str, Any], str]] = {
    "label too high": (
        (IMAGES, np.where(np.arange(40) == 37, 12, LABELS)),
        {},
        r"^fit: labels must lie in 0\.\.2; found 12 at index 37\.\n  1 of 40 labels are outside",
    ),
    "label below 0": ((IMAGES, LABELS - 1), {}, r"^fit: labels must lie in 0\.\.2; found -1 at index"),
    "label of the validation": (
        (IMAGES, LABELS),
        {"validation": (IMAGES, LABELS + 3)},
        r"^fit \(validation\): labels must lie in 0\.\.2",
    ),
    "floats": ((IMAGES, LABELS / 1), {}, r"(?s)^fit: labels must be integers\..*labels \(40,\) float64.*'int64'"),
    "halves": ((IMAGES, LABELS + 0.5), {}, r"(?s)^fit: labels must be integers\..*np\.unique"),
    "text": ((IMAGES, ["a"] * 40), {}, r"(?s)^fit: labels must be integers\..*of <U1, such as 'a'.*np\.unique"),
    "a data set": ((train.Dataset(*[IMAGES] * 4, ("a",))), {}, r"(?s)^fit: data must be a pair.*\(data\.train_images,"),
    "one-hot": ((IMAGES, np.eye(3, dtype=int)[LABELS]), {}, r"(?s)^fit: labels must have shape \(40,\)\..*argmax"),
    "lengths": ((IMAGES, LABELS[:-1]), {}, r"(?s)^fit: needs as many labels as images.*\(40, 4, 4, 1\).*\(39,\)"),
    "nothing": ((IMAGES[:0], LABELS[:0]), {}, r"^fit: needs as many labels as images, and at least one"),
    "a dict": ({"x": IMAGES, "y": LABELS}, {}, r"^fit: data must be a pair \(images, labels\)\.\n  given: dict"),
    "words": ((np.full((40, 2), "a"), LABELS), {}, r"^fit: images must be numbers"),
    "batch size": ((IMAGES, LABELS), {"batch_size": 0}, r"^fit: batch_size must be at least 1"),
    "epochs": (
        (IMAGES, LABELS),
        {"epochs": 1.5},
        r"^fit: epochs must be an integer, not 1\.5",
    ),
    "seed": ((IMAGES, LABELS), {"seed": 0.5}, r"^fit: seed must be an integer, not 0\.5"),
    "progress": ((IMAGES, LABELS), {"progress": "bar"}, r"^fit: progress must be True, False or a train\.Progress"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_do_not_fit_are_named_before_the_first_step(case: str) -> None:
    data, options, said = BAD_DATA[case]
    net = small_net()
    before = net.state_dict()
    with pytest.raises((ValueError, TypeError), match=said):
        fit(net, data, **options)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_labels_of_a_map_are_named_by_their_whole_index() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1)).initialize(0)
    labels = np.zeros((40, 4, 4), int)
    assert fit(net, (IMAGES, labels))[-1].accuracy is not None
    for given, remedy in (
        (np.eye(3)[labels], r"argmax\(axis=3\)"),
        (labels[..., None], r"labels\[\.\.\., 0\]"),
        (labels > 0, "astype"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)labels must .*{remedy}"):
            fit(net, (IMAGES, given))
    labels[5, 2, 3] = 3
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2; found 3 at index 5, 2, 3\."):
        fit(net, (IMAGES, labels))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "adam"}, "optimizer must be an optimizer"),
        ({"optimizer": train.Adam}, r"call the class: Adam\(\.\.\.\)"),
        ({"schedule": 3}, "schedule must be a function of"),
        ({"schedule": train.schedule.Cosine}, r"call the class: Cosine\(\.\.\.\)"),
        ({"augment": "flip"}, "augment must be a function of"),
        ({"net": None}, "network must be an nn.Module"),
        ({"net": nn.Sequential}, r"call the class: Sequential\(\.\.\.\)"),
        ({"data": (np.ma.masked_array(blobs()[0]), blobs()[1])}, "images is a numpy.ma.MaskedArray"),
        ({"data": (blobs()[0], np.ma.masked_array(blobs()[1]))}, "labels is a numpy.ma.MaskedArray"),
        ({"data": (blobs()[0] * 1j, blobs()[1])}, "imaginary parts would be lost"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused(options: dict[str, Any], said: str) -> None:
    net, data = options.pop("net", small_net()), options.pop("data", blobs())
    with pytest.raises(TypeError, match=said):
        fit(net, data, **options)


def flat(*first: nn.Module) -> nn.Sequential:
    """A batch norm on features, of which an example has one value each."""
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm(8), nn.Dropout(0.1), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("count", "batch_size", "said"),
    [
        (
            33,
            16,
            r"^fit: the last batch .*\n  33 images in batches of 16\n  BatchNorm: .*; in layer '2', .*\n  .* of 17 ",
        ),
        (33, 8, r" of 9 "),
        (9, 1, r"^fit: this network cannot be trained on batches of one example\.\n  9 images in .* 1\n.*\n.* of 3 "),
        (1, 4, r"\n  1 image in batches of 4\n.*\n  give it two images"),
    ],
)
def test_one_example_left_over_for_a_batch_norm_on_features_is_told_before_the_first_step(
    count: int, batch_size: int, said: str, tmp_path: Path
) -> None:
    seen, net = Seen(), flat().initialize(0)
    before = net.state_dict()
    for options in ({}, {"checkpoint": train.Checkpoint(tmp_path / "run", resume=True)}):
        with pytest.raises(ValueError, match=said):
            fit(net, (IMAGES[:count], LABELS[:count]), batch_size=batch_size, progress=seen, **options)
    assert not seen.told
    assert net[3].draws() == 0
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


class Still(nn.Module):
    """A part that is trained with the statistics it has."""

    capturable = True

    def __init__(self) -> None:
        self.part = nn.Sequential(nn.Flatten(), nn.BatchNorm(None))

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> Any:
        return self.part.vjp(x, training=False, needs_input=needs_input)


class Locked(nn.Module):
    """A layer that cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> Any:
        return x, lambda dy: dy


@pytest.mark.parametrize(
    "net",
    [
        small_net(),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm(4), nn.Flatten(), nn.Linear(None, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(None, 8), nn.LayerNorm(8), nn.Linear(8, 3)),
        nn.Sequential(Still(), nn.Linear(None, 3)),
    ],
    ids=["no norm", "on pixels", "by rows", "at inference"],
)
def test_one_example_left_over_is_trained_on_where_it_can_be(net: nn.Module) -> None:
    assert len(fit(net, (IMAGES[:33], LABELS[:33]))) == 2


def test_where_a_network_cannot_be_copied_the_last_batch_tells() -> None:
    seen = Seen()
    with pytest.raises(ValueError, match=r"^BatchNorm: training needs more than one value per channel"):
        fit(flat(Locked()), (IMAGES[:33], LABELS[:33]), progress=seen)
    assert (1, 2) in seen.told


def test_numbers_of_the_validation_are_checked_before_the_first_step() -> None:
    seen, images = Seen(), blobs()[0]
    with pytest.raises(ValueError, match=r"fit \(validation\): targets must have shape \(40, 3\)"):
        fit(small_net(), (images, np.zeros((40, 3))), loss="mse", validation=(images, np.zeros(40)), progress=seen)
    assert not seen.told
