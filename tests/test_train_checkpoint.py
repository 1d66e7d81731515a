"""A run that was stopped and taken up is the run that was not stopped, or is refused in words."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from targets import missing
from training import blobs

import xpconv
from xpconv import backend, nn, train
from xpconv.errors import FileError
from xpconv.train import checkpoint as module
from xpconv.train.progress import Bar

OPTIMIZERS = {
    "momentum": lambda: train.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: train.Adam(1e-2),
    "adamw": lambda: train.AdamW(1e-2),
}


def network(activation: str | None = "relu") -> nn.Sequential:
    """Running statistics and two layers that draw."""
    conv = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", bias=False), nn.BatchNorm(4, activation=activation), nn.Dropout(0.1)
    )
    return nn.Sequential(conv, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)).initialize(3)


class Stopping(train.Progress):
    """Ends the run like a signal that cannot be held back, in the second step of an epoch."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int) -> None:
        if (epoch, step) == (self.epoch, 2):
            raise SystemExit


def run(net: nn.Module, path: Path, *, resume: bool = False, **options: Any) -> train.History:
    usual = {
        "epochs": 6,
        "batch_size": 16,
        "optimizer": train.Adam(1e-2),
        "schedule": train.schedule.Cosine(warm_up=0.2),
        "augment": train.augment.random_shift(1),
        "seed": 7,
        "progress": False,
        "checkpoint": train.Checkpoint(path, resume=resume),
    }
    return train.fit(net, options.pop("data", blobs()), **usual | options)


def stopped(path: Path, **options: Any) -> None:
    """A run that ends in its fourth epoch."""
    with pytest.raises(SystemExit):
        run(network(), path, progress=Stopping(4), **options)


def measures(history: train.History) -> list[dict[str, Any]]:
    return [{**asdict(record), "seconds": 0} for record in history]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name: str, path: Path) -> None:
    made = OPTIMIZERS[name]
    whole, optimizer = network(), made()
    history = run(whole, path, optimizer=optimizer, validation=blobs(seed=1))
    stopped(path, optimizer=made(), validation=blobs(seed=1))
    assert len(module.read(path).history) == 3
    net, again = network().initialize(99), made()  # of which nothing may be left
    resumed = run(net, path, resume=True, optimizer=again, validation=blobs(seed=1))
    assert measures(resumed) == measures(history)
    for mine, theirs in ((net.state_dict(), whole.state_dict()), (again.state_dict(), optimizer.state_dict())):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)


def test_a_run_goes_on_where_another_backend_left_it(path: Path) -> None:
    if missing("array_api_strict"):
        pytest.skip("no array_api_strict here")
    whole, made = network(), OPTIMIZERS["momentum"]
    run(whole, path, optimizer=made())
    stopped(path, optimizer=made())
    with xpconv.use_backend("array_api_strict"):
        net = network()
    run(net, path, resume=True, optimizer=made())
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(backend.to_numpy(net.state_dict()[name]), value, rtol=1e-3, atol=1e-5)


IMAGES, LABELS = blobs()
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 8}, "batch_size: 16 there · 8 here"),
    "seed": ({"seed": 8}, "seed: 7 there · 8 here"),
    "rate": ({"optimizer": train.Adam(1e-3)}, r"optimizer: Adam\(lr=0\.01,.* there · Adam\(lr=0\.001,"),
    "clipping": (
        {"optimizer": train.Adam(1e-2, clip_norm=1)},
        r"optimizer: Adam\(.*0\.0\) there · .*clip_norm=1\.0\) here",
    ),
    "schedule": ({"schedule": None}, r"schedule: Cosine\(.*\) there · None here"),
    "augment": ({"augment": None}, r"augment: <function random_shift\.<locals>\.shift> there · None here"),
    "images": ({"data": (IMAGES + 1, LABELS)}, r"images: \(40, 4, 4, 1\) float32 \w+ there · "),
    "labels": ({"data": (IMAGES, LABELS[::-1])}, r"labels: \(40,\) int64 \w+ there · "),
    "network": ({"net": network("silu")}, r"network: .*activation='relu'\) there · .*activation='silu'\) here"),
    "frozen": ({"net": network().freeze()}, r"network: nothing there · frozen: 0\.0\.weight, "),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_run_is_refused_and_nothing_changed(case: str, path: Path) -> None:
    given, said = OTHERS[case]
    stopped(path)
    kept = path.read_bytes()
    options = dict(given)
    net = options.pop("net", None) or network()
    before = net.state_dict()
    with pytest.raises(FileError, match=rf"^fit: the run in '.*' is another one\.\n  {said}.*\n  give the same, or "):
        run(net, path, resume=True, **options)
    assert path.read_bytes() == kept
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())


def test_a_precision_of_its_own_is_a_run_of_its_own(path: Path) -> None:
    stopped(path)
    with xpconv.precision("fast"), pytest.raises(FileError, match="precision: ieee there · fast here"):
        run(network(), path, resume=True)


def test_more_epochs_follow_the_schedule_of_all_of_them(path: Path) -> None:
    rates: list[float] = []

    def noting(step: int, total: int) -> float:
        rates.append(step / total)
        return 1.0

    run(network(), path, schedule=noting, epochs=2)
    told = Stopping()
    assert len(run(network(), path, resume=True, schedule=noting, epochs=3, progress=told)) == 3
    assert rates == pytest.approx([*(step / 6 for step in range(6)), 6 / 9, 7 / 9, 8 / 9])
    assert told.notes == ["going on after epoch 2; the schedule is now that of 3 epochs, not of 2"]
    net = network()
    assert len(run(net, path, resume=True, schedule=noting, epochs=3, progress=told)) == 3
    assert told.notes[1:] == ["all 3 epochs are there already"]
    assert np.array_equal(net.state_dict()["4.bias"], load_file(path)["net.4.bias"]), "the network is there, too"
    with pytest.raises(FileError, match=r"more epochs than are wanted\.\n  there: 3 · epochs=2"):
        run(network(), path, resume=True, schedule=noting, epochs=2)


def test_an_epoch_that_cannot_be_written_leaves_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = train.Checkpoint(path)
    run(network(), path, epochs=1, checkpoint=kept)
    assert kept.epoch == 1
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match=r"epoch 2 is not in the checkpoint\.\n  .*run\.safetensors: No space left"):
        assert len(run(network(), path, epochs=2, resume=True, schedule=train.schedule.Cosine(warm_up=0.2))) == 2
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:fit. the loss is not finite", "ignore:overflow", "ignore:invalid value")
def test_what_has_diverged_is_not_kept(path: Path) -> None:
    images = IMAGES.copy()
    images[3] = np.inf
    assert run(network(), path, data=(images, LABELS)).diverged
    assert not path.exists()
    diverging = train.SGD(1e60)
    assert run(network(), path, optimizer=diverging, batch_size=40, schedule=None).diverged
    assert not path.exists(), "the first loss was finite, the network after its step was not"


def test_a_file_that_is_no_checkpoint_is_refused_in_words(path: Path) -> None:
    def refused(said: str) -> None:
        net = network()
        before = net.state_dict()
        with pytest.raises(FileError, match=said):
            run(net, path, resume=True)
        assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())

    refused(r"there is no checkpoint to go on from\.\n  begin a run with resume=False")
    xpconv.save(network(), path)
    refused("no checkpoint that this version of xpconv wrote")
    path.write_bytes(b"half a file")
    refused("truncated, damaged")
    stopped(path)
    about = json.loads(module.tensors.metadata(path)["xpconv.run"])
    save_file(load_file(path), path, {"xpconv.run": json.dumps({**about, "format": 2})})
    refused("version 2 of the format; this xpconv reads version 1")
    arrays = {name.replace("optimizer.4.bias", "optimizer.9.bias"): x for name, x in load_file(path).items()}
    save_file(arrays, path, {"xpconv.run": json.dumps(about)})
    refused(r"Adam: there is no parameter '9\.bias' to go on with")
    arrays.pop("optimizer.9.bias.m")
    save_file(arrays, path, {"xpconv.run": json.dumps(about)})
    refused(r"not of this network and optimizer\.\n  Adam: this is not the state of Adam")
    for damage in ({"history": None}, {"history": ""}, {"history": about["history"].split("\n", 1)[1]}, {"draws": [1]}):
        save_file(load_file(path), path, {"xpconv.run": json.dumps({**about, **damage})})
        refused("no checkpoint that this version of xpconv wrote")
    with pytest.raises(FileError, match="no folder for the checkpoint"):
        run(network(), path / "deeper")
    with pytest.raises(FileError, match="is a folder"):
        run(network(), path.parent)
    with pytest.raises(TypeError, match=r"checkpoint must be a train\.Checkpoint\(path\)"):
        run(network(), path, checkpoint=str(path))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (
            "4.bias.m",
            lambda x: x[:2],
            r"'4\.bias' has another shape or dtype .*  m \(2,\) float32 · expected \(3,\)",
        ),
        ("4.weight.v", lambda x: x.T.copy(), r"'4\.weight' has another shape"),
        ("4.bias.v", lambda x: x.astype("float64"), r"v \(3,\) float64 · expected \(3,\) float32"),
        ("4.bias.m", lambda x: x.astype("int32"), r"m \(3,\) int32"),
        ("steps", lambda x: x[None], r"steps must be one integer from 0 on\.\n.*given: \[9\]"),
        ("steps", lambda x: -x, r"steps must be one integer from 0 on"),
        ("4.bias.steps", lambda x: x + 1, r"4\.bias\.steps must be one integer of at most 9"),
        ("4.bias.steps", lambda x: np.float64(x), r"given: 9\.0"),
    ],
)
def test_what_cannot_have_been_kept_is_refused_before_anything_changes(
    name: str, damage: Any, said: str, path: Path
) -> None:
    run(network(), path, epochs=3)
    arrays = load_file(path)
    arrays[f"optimizer.{name}"] = np.array(damage(arrays[f"optimizer.{name}"]), order="C")
    save_file(arrays, path, {"xpconv.run": module.tensors.metadata(path)["xpconv.run"]})
    net, optimizer = network().initialize(5), train.Adam(1e-2)
    before = net.state_dict()
    with pytest.raises(FileError, match=rf"(?s)is not of this network and optimizer\.\n  Adam: .*{said}"):
        run(net, path, resume=True, optimizer=optimizer)
    assert optimizer.state_dict() == {"steps": 0}
    assert all(np.array_equal(before[key], value) for key, value in net.state_dict().items())


def test_a_checkpoint_in_words_of_before_is_of_the_same_run(path: Path) -> None:
    """NumPy's numbers, before layers took them for Python's; nothing of clipping, before there was any."""
    run(network(), path, epochs=3)
    words = module.tensors.metadata(path)["xpconv.run"]
    old = words.replace("Linear(16, 3)", "Linear(np.int64(16), np.int64(3))").replace("bias=False", "bias=np.False_")
    assert len(old) > len(words) + 20
    assert ", clip_norm=None)" in old
    old = old.replace(", clip_norm=None", "")
    save_file(load_file(path), path, {"xpconv.run": old})
    assert len(run(network(), path, resume=True, epochs=4)) == 4
    save_file(load_file(path), path, {"xpconv.run": words.replace("bias=False", "bias=0")})  # or judged flags
    assert len(run(network(), path, resume=True, epochs=5)) == 5
    save_file(load_file(path), path, {"xpconv.run": words.replace("Linear(16, 3)", "Linear(16, np.int64(4))")})
    with pytest.raises(FileError, match=r"network: 4: Linear\(16, 4\) there · 4: Linear\(16, 3\) here"):
        run(network(), path, resume=True)


class Plain(train.SGD):
    """An optimizer as people write them: the state that it loads is all that it is told."""

    def load_state_dict(self, state: Any) -> None:  # type: ignore[override]
        super().load_state_dict(state)


def test_an_optimizer_of_ones_own_may_load_its_state_alone(path: Path) -> None:
    run(network(), path, epochs=2, optimizer=Plain(0.1, 0.9))
    assert len(run(network(), path, resume=True, epochs=3, optimizer=Plain(0.1, 0.9))) == 3


def test_a_damaged_checkpoint_is_told(path: Path) -> None:
    run(network(), path, epochs=np.int64(1))
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FileError, match=r"the file is damaged.*\n  checksums of 1 of \d+ arrays differ: optimizer\."):
        run(network(), path, resume=True, epochs=2)


def test_arguments_of_a_checkpoint(path: Path) -> None:
    with pytest.raises(TypeError, match=r"^Checkpoint: resume must be True or False\.\n  given: resume='no'"):
        train.Checkpoint(path, resume="no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Checkpoint: notes must be of what JSON has"):
        train.Checkpoint(path, notes={"of": object()})


def test_the_time_left_of_a_run_that_goes_on_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("xpconv.train.progress.time.monotonic", lambda: next(clock))
    live = Bar()
    live._epochs, live._steps, live._looked, live._first, live._began = 6, 10, 0.0, 0, 0.0
    seen: list[str] = []
    live._bar = type("B", (), {"update": lambda self, *_, status, **__: seen.append(status)})()
    live._task = 0
    live.on_step(5, 1)
    live.on_step(5, 2)
    assert seen == ["", "3:00 left"]  # 18 steps of 10 s
