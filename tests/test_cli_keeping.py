"""What `xpconv train` keeps, whatever ends it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from nets import PICTURES, RUN_FILES

from xpconv import train
from xpconv.cli import main, model_file


def test_a_run_that_diverges_is_a_failure_and_writes_nothing(data, tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"of an earlier run")
    assert main(["train", "--data", str(data), "--epochs", "9", "--lr", "1e30", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: train: the loss is not finite in epoch 1")
    assert "Warning" not in err
    assert "smaller --lr" in err
    assert f"nothing is written to {tmp_path}" in err
    assert f"{tmp_path}, in place of an earlier run's" in out
    assert "accuracy:" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"of an earlier run"


def test_what_was_learned_is_kept_after_every_epoch(data, tmp_path, monkeypatch, capsys):
    """A run that is killed in its third epoch has kept two, and one that diverges there goes back to them."""
    real, seen = train.fit, []
    (tmp_path / "curves.png").write_bytes(b"of an earlier run")

    def fit(net, images, *, progress, **options):
        history = real(net, images, **{**options, "epochs": 2}, progress=progress)
        seen.append({path.name for path in tmp_path.iterdir()})
        history.append(replace(history[-1], epoch=3, loss=math.nan))
        history.diverged = True
        next(iter(net.parameters().values())).assign(next(iter(net.parameters().values())).value * math.nan)
        progress.on_epoch(history[-1])
        return history

    monkeypatch.setattr(train, "fit", fit)
    assert main(["train", "--data", str(data), "--epochs", "5", "--out", str(tmp_path)]) == 1
    assert seen == [(RUN_FILES - PICTURES) | {".lock"}]
    assert f"{tmp_path / 'model.safetensors'} is of epoch 2" in capsys.readouterr().err
    assert len(train.History.load(tmp_path / "history.jsonl")) == 2
    net, _ = model_file.load(tmp_path / "model.safetensors")
    assert all(np.isfinite(value).all() for value in net.state_dict().values())


@pytest.mark.parametrize("interrupted", [True, False])
def test_numbers_that_are_not_finite_do_not_replace_what_was_kept(data, tmp_path, monkeypatch, capsys, interrupted):
    """Ctrl-C in an epoch that has diverged, and a last step that does, come before any loss tells of it."""
    real = train.fit

    def fit(net, images, *, progress, **options):
        history = real(net, images, **{**options, "epochs": 2}, progress=progress)
        weight = next(iter(net.parameters().values()))
        weight.assign(weight.value * math.nan)
        history.interrupted = interrupted
        if not interrupted:
            history.append(replace(history[-1], epoch=3))
            progress.on_epoch(history[-1])
        return history

    monkeypatch.setattr(train, "fit", fit)
    assert main(["train", "--data", str(data), "--epochs", "3", "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "the network is not finite in epoch 3" in err
    assert f"{tmp_path / 'model.safetensors'} is of epoch 2" in err
    net, _ = model_file.load(tmp_path / "model.safetensors")
    assert all(np.isfinite(value).all() for value in net.state_dict().values())
    assert len(train.History.load(tmp_path / "history.jsonl")) == 2


def test_a_network_without_its_history_is_told_to_be_of_this_run(data, tmp_path, monkeypatch, capsys):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(train.History, "save", full)
    real = train.fit

    def fit(*args, **options):
        history = real(*args, **options)
        history.diverged = True
        return history

    monkeypatch.setattr(train, "fit", fit)
    assert main(["train", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path / 'model.safetensors'} is of epoch 1" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").exists()


def test_an_epoch_that_cannot_be_kept_is_told_and_training_goes_on(data, tmp_path, monkeypatch, capsys):
    real, calls = model_file.save, []

    def save(net, images, path):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device", str(path))
        real(net, images, path)

    monkeypatch.setattr(model_file, "save", save)
    assert main(["train", "--data", str(data), "--epochs", "2", "--out", str(tmp_path)]) == 0
    model = tmp_path / "model.safetensors"
    assert f"epoch 1 is not kept: {model}: No space left on device" in capsys.readouterr().out
    assert calls == [model] * 3
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES


def test_one_class_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "one.npz", images=np.zeros((9, 8, 8), "uint8"), labels=np.zeros(9, int))
    assert main(["train", "--data", str(tmp_path / "one.npz"), "--out", str(tmp_path / "run")]) == 2
    assert "there is one class, and nothing to tell it from" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
