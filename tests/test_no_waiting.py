"""Training asks the device for nothing within an epoch: only the epoch's means come to the host.

On array-api-strict's second device every way to the host but `to_device` raises; here each of those is counted.
"""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

import xpconv
from xpconv import nn, train

DEVICE = "array_api_strict:device1"


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the arrays that went to the host."""
    seen: list[tuple[int, ...]] = []
    kind = type(array_api_strict.asarray(0))
    move = kind.to_device

    def counted(self: Any, device: Any, /, **options: Any) -> Any:
        if device != self.device:
            seen.append(self.shape)
        return move(self, device, **options)

    monkeypatch.setattr(kind, "to_device", counted)
    return seen


class Watch(train.Progress):
    """How many copies there were after each step."""

    def __init__(self, copies: list[tuple[int, ...]]) -> None:
        self.copies, self.counts = copies, []

    def on_step(self, epoch: int, step: int) -> None:
        self.counts.append(len(self.copies))


OPTIMIZERS = (train.SGD(0.1, momentum=0.9, clip_norm=0.1), train.Adam(), train.AdamW())


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_no_step_copies_to_the_host(copies: list[tuple[int, ...]], optimizer: train.Optimizer) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((24, 6, 6, 1)).astype("float32"), np.arange(24) % 3
    watch = Watch(copies)
    with xpconv.use_backend(DEVICE):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding="same"),
            nn.BatchNorm(4, activation="relu"),
            nn.MaxPool2d(2),
            nn.Residual(nn.Conv2d(4, 4, 3, padding="same")),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(None, 3),
        ).initialize(seed=0)
        train.fit(
            net,
            (x, labels),
            epochs=2,
            batch_size=8,
            optimizer=optimizer,
            schedule=train.schedule.Cosine(),
            augment=train.augment.random_shift(1),
            validation=(x, labels),
            progress=watch,
        )
    per_epoch = [watch.counts[:3], watch.counts[3:]]
    assert all(len(set(counts)) == 1 for counts in per_epoch), "a step copied something to the host"
    # Losses and counts of right answers, of training and validation, once an epoch and each in one array.
    assert copies == [(3,)] * 8


def test_a_look_at_the_loss_fetches_what_is_new(copies: list[tuple[int, ...]]) -> None:
    """A display looks many times a second: what it has seen is not gathered again."""

    class Looking(train.Progress):
        def on_step(self, epoch: int, step: int) -> None:
            if step != 2:
                assert self.running is not None
                self.running.result()

    with xpconv.use_backend(DEVICE):
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).initialize(seed=0)
        data = np.ones((8, 2, 2, 1), "float32"), np.arange(8) % 2
        train.fit(net, data, epochs=1, batch_size=2, progress=Looking())
    assert [shape for shape in copies if len(shape) == 1] == [(1,), (1,), (2,), (2,), (1,), (1,)]


def test_a_step_of_ones_own_looks_at_labels_of_the_device_once(copies: list[tuple[int, ...]]) -> None:
    x, labels = np.ones((8, 2, 2, 1), "float32"), np.arange(8) % 2
    with xpconv.use_backend(DEVICE):
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).initialize(seed=0)
        step, there = train.Step(net, train.SGD(0.1)), xpconv.asarray(labels)
        with pytest.raises(ValueError, match=r"^Step: labels must lie in 0\.\.1; found 2 at index 1"):
            step(x, there + 1)
        step(x, there)
        copies.clear()
        for _ in range(3):
            assert np.isfinite(xpconv.to_numpy(step(x, labels).loss))  # of the host: looked at each time
            with pytest.raises(ValueError, match=r"^Step: labels must lie"):
                step(x, labels + 1)
            assert np.isfinite(xpconv.to_numpy(step(x, there).loss))
        assert (8,) not in copies[:2]


def test_a_copy_would_be_seen(copies: list[tuple[int, ...]]) -> None:
    """That counting counts: a layer that looks at its input is found out."""

    class Looking(nn.Module):
        def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> Any:
            assert xpconv.to_numpy(x) is not None
            return x, lambda dy: dy

    watch = Watch(copies)
    with xpconv.use_backend(DEVICE):
        net = nn.Sequential(Looking(), nn.Flatten(), nn.Linear(4, 2)).initialize(seed=0)
        train.fit(net, (np.ones((4, 2, 2, 1)), [0, 1, 0, 1]), epochs=1, batch_size=2, progress=watch)
    assert watch.counts[0] < watch.counts[1]
