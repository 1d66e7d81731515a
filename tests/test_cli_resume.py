"""`xpconv train --resume`, and two runs into one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from nets import PICTURES, RUN_FILES, corners
from safetensors.numpy import load_file, save_file

from xpconv import plot, train
from xpconv.cli import main
from xpconv.cli.alone import alone_in
from xpconv.cli.console import UsageError
from xpconv.train import checkpoint


class _Ending(train.Lines):
    """Ends the process in the second step of the fourth epoch."""

    def on_step(self, epoch: int, step: int) -> None:
        if (epoch, step) == (4, 2):
            raise SystemExit


@pytest.fixture
def arguments(data, tmp_path):
    return ["train", "--data", str(data), "--epochs", "6", "--batch-size", "16", "--out", str(tmp_path / "run")]


@pytest.fixture
def ended(arguments, tmp_path, monkeypatch, capsys):
    """The folder of a run that was ended in its fourth epoch."""
    with monkeypatch.context() as patched:
        patched.setattr(train, "Lines", _Ending)
        with pytest.raises(SystemExit):
            main(arguments)
    capsys.readouterr()
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES - PICTURES
    return tmp_path / "run"


@pytest.fixture
def _no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("learning_curves", "filters", "mistakes"):
        monkeypatch.setattr(plot, name, lambda *_, **__: None)


def resumed(folder: Path, *options: str) -> int:
    return main(["train", "--resume", "--out", str(folder), *options])


def test_a_run_that_was_ended_goes_on_to_the_same_network(arguments, ended, tmp_path, capsys):
    (ended / ".lock").write_text("1")  # a process that is there, and not the one that wrote this
    (ended / ".checkpoint.0a1b2c3d.safetensors").write_text("half a file")
    assert resumed(ended) == 0
    shown = capsys.readouterr().out
    assert f"{ended}, where 3 of 6 epochs are" in shown
    assert "going on after epoch 3\n" in shown
    assert "in batches of 16" in shown
    assert main([*arguments[:-1], str(tmp_path / "whole")]) == 0
    assert (ended / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert {path.name for path in ended.iterdir()} == RUN_FILES
    mine, theirs = (train.History.load(folder / "history.jsonl") for folder in (ended, tmp_path / "whole"))
    assert [(r.epoch, r.loss, r.val_loss, r.lr) for r in mine] == [(r.epoch, r.loss, r.val_loss, r.lr) for r in theirs]


@pytest.mark.usefixtures("_no_pictures")
def test_more_epochs_take_up_a_run_that_was_done(ended, capsys):
    file = ended / "checkpoint.safetensors"
    words = checkpoint.tensors.metadata(file)["xpconv.run"]
    before = words.replace(', "clip_norm": null', "").replace(", clip_norm=None", "")  # as files were that knew of none
    assert "clip_norm" in words
    assert "clip_norm" not in before
    save_file(load_file(file), file, {"xpconv.run": before})
    assert resumed(ended, "--epochs", "3") == 0
    shown = capsys.readouterr().out
    assert "all 3 epochs are there already" in shown
    assert "epoch      loss" not in shown, "a table without rows has no head"
    assert resumed(ended, "--epochs", "4") == 0
    assert "the schedule is now that of 4 epochs, not of 6" in capsys.readouterr().out
    assert len(train.History.load(ended / "history.jsonl")) == 4
    assert resumed(ended, "--epochs", "2") == 2
    assert "--epochs: the run in" in capsys.readouterr().err


def test_options_of_another_run_are_refused(ended, tmp_path, capsys):
    given = ["--model", "resnet20", "--lr", "0.1", "--clip-norm", "1", "--batch-size", "16", "--precision", "fast"]
    assert resumed(ended, *given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --resume: the run in {str(ended)!r} is another one.")
    for line in ("--model: lenet there, resnet20 here", "--lr: 0.003 there, 0.1 here", "--precision: ieee there, fast"):
        assert f"\n  {line}" in said
    assert "\n  --clip-norm: None there, 1.0 here" in said
    assert "--batch-size" not in said
    images, labels = corners()
    np.savez(tmp_path / "others.npz", images=images, labels=(labels + 1) % 3)
    assert resumed(ended, "--data", str(tmp_path / "others.npz")) == 2
    said = capsys.readouterr().err
    assert "error: --resume: the run in" in said
    assert "\n  labels: (121,) int64" in said
    assert "begin anew without --resume." in said


@pytest.mark.usefixtures("_no_pictures")
def test_the_precision_is_that_of_the_run(arguments, tmp_path, capsys):
    assert main([*arguments, "--epochs", "1", "--precision", "fast"]) == 0
    assert resumed(tmp_path / "run", "--epochs", "2", "--backend", "array_api_strict") == 0
    shown = capsys.readouterr().out
    assert "precision fast\n" in shown
    assert (
        "backend array_api_strict, engine auto (backend numpy, engine auto before: the same but for rounding)" in shown
    )


def test_where_there_is_nothing_to_go_on_with_it_is_told(ended, tmp_path, capsys):
    assert resumed(tmp_path) == 2
    assert f"--resume: there is no run to go on with in {str(tmp_path)!r}." in capsys.readouterr().err
    file = ended / "checkpoint.safetensors"
    about = json.loads(checkpoint.tensors.metadata(file)["xpconv.run"])
    save_file(load_file(file), file, {"xpconv.run": json.dumps({**about, "notes": {}})})
    assert resumed(ended) == 2
    assert "is of no run of `xpconv train`" in capsys.readouterr().err
    file.write_bytes(b"half")
    assert resumed(ended) == 2
    assert "truncated, damaged" in capsys.readouterr().err


def test_a_new_run_says_that_the_old_one_could_go_on(arguments, ended, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit", lambda net, *_, **__: train.History(diverged=True))
    main(arguments)
    assert "in place of an earlier run's (3 of 6 epochs; --resume goes on with it)" in capsys.readouterr().out


def test_ctrl_c_before_the_first_epoch_is_over_leaves_the_earlier_run(arguments, ended, monkeypatch, capsys):
    monkeypatch.setattr(train.Lines, "on_step", lambda *_: signal.raise_signal(signal.SIGINT))
    there = {path.name: path.read_bytes() for path in ended.iterdir()}
    assert main(arguments) == 130
    assert f"stopped in epoch 1 of 6; {ended} is as the earlier run left it\n" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in ended.iterdir()} == there


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_second_run_into_a_folder_is_refused_while_the_first_is_there(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom xpconv.cli.alone import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert f"--out: another run writes into {str(folder)!r}.\n  process {first.pid}\n" in said
        assert [path.name for path in folder.iterdir()] == [".lock"]
        first.kill()
    with alone_in(folder), pytest.raises(UsageError, match=f"process {os.getpid()}\n"), alone_in(folder):
        pass  # what the killed one has left holds nobody back, and a process not even itself
    assert not list(folder.iterdir())


def test_windows_locks_a_byte_that_holds_no_number(tmp_path, monkeypatch):
    """By a module that stands for the system's: its `locking` is held to what Windows documents of it."""
    held = {}

    def locking(file, mode, count):
        assert (mode, count) == (2, 1)
        place = os.fstat(file).st_ino, os.lseek(file, 0, os.SEEK_CUR)
        if held.setdefault(place, file) != file:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with alone_in(tmp_path) as alone:
        assert alone
        with pytest.raises(UsageError, match=f"process {os.getpid()}\n"), alone_in(tmp_path):
            pass
    assert [place for _, place in held] == [2**20]
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    with alone_in(tmp_path) as alone:
        assert not alone
