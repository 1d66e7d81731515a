"""The record of a run, in memory and as JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from xpconv.errors import FileError
from xpconv.train import Epoch, History

FULL = Epoch(1, 0.5, 0.75, 0.625, 0.7, 1e-3, 2.0)
BARE = Epoch(2, 0.25, None, None, None, 5e-4, 2.25)


def test_a_history_is_printed_as_its_lines():
    epochs = [Epoch(i, 1 / 3, 2 / 3, None, None, 1e-3, 1.0) for i in (1, 2)]
    assert str(History(epochs)).splitlines() == [str(epoch) for epoch in epochs]
    assert "loss 0.3333, accuracy 0.6667" in str(History(epochs))


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History([FULL, BARE]).save(path)
    loaded = History.load(path)
    assert loaded == [FULL, BARE]
    assert isinstance(loaded, History)
    assert not loaded.interrupted
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"epoch": 1, "loss": 0.5, "accuracy": 0.75, "val_loss": 0.625, "val_accuracy": 0.7, "lr": 1e-3, "seconds": 2.0},
        {"epoch": 2, "loss": 0.25, "lr": 5e-4, "seconds": 2.25},
    ]


def test_a_loss_that_is_not_finite_is_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History([Epoch(1, math.nan, 0.1, math.inf, None, 1.0, 1.0)]).save(path)
    assert "NaN" not in path.read_text()
    (loaded,) = History.load(path)
    assert math.isnan(loaded.loss)
    assert loaded.val_loss is not None
    assert math.isnan(loaded.val_loss)
    assert loaded.val_accuracy is None


def test_saving_replaces_whole_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    History([FULL]).save(path)

    def full_disk(self: Path, text: str, **options: str) -> int:
        self.write_bytes(text.encode()[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        History([FULL, BARE]).save(path)
    assert History.load(path) == [FULL]
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.jsonl"]


@pytest.mark.parametrize(
    "text",
    ['{"epoch": 1, "lo', "[1, 2]", '{"epoch": 1}', '{"epoch": 1, "loss": "x", "lr": 1, "seconds": 1}', "PK\x03\x04"],
)
def test_a_foreign_or_truncated_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    History([FULL]).save(path)
    with path.open("a") as file:
        file.write(text)
    with pytest.raises(FileError, match=r"(?s)History.load: line 2 of .*history.jsonl' is not the record of an epoch"):
        History.load(path)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    for name in ("missing", "binary"):
        with pytest.raises(FileError, match=rf"History.load: cannot read '.*{name}'"):
            History.load(tmp_path / name)


def test_an_epoch_reads_as_a_line() -> None:
    said = "epoch 1 · loss 0.5000, accuracy 0.7500 · validation 0.6250, 0.7000 · 2.0 s"
    assert str(FULL) == said
    assert str(BARE) == "epoch 2 · loss 0.2500 · 2.2 s"
