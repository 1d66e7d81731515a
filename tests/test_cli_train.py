"""`xpconv train`: what it prints and writes, on a terminal and without one, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from command import LAST_LINE
from nets import RUN_FILES, corners
from PIL import Image

from xpconv import exchange, nn, settings, train
from xpconv.cli import console, main
from xpconv.train import progress

STOPPING = "stopping after this step; Ctrl-C again leaves at once\n"


def test_train_writes_its_files_and_nothing_else(trained):
    out, _ = trained
    assert {path.name for path in out.iterdir()} == RUN_FILES
    for name in RUN_FILES:
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                assert min(image.size) > 100
    assert [record.epoch for record in train.History.load(out / "history.jsonl")] == [1, 2, 3, 4]


def test_train_says_what_it_runs_and_where_the_files_are(trained):
    out, text = trained
    assert "121 training and 29 test images 8×8×1, 3 classes" in text
    assert re.search(r"3 classes, pixels 0(\.\d+)? to 0\.9\d+$", text, re.MULTILINE)
    assert "lenet: 52,099 parameters" in text
    assert "backend numpy, engine auto, precision ieee" in text
    assert all(str(out / name) in text for name in RUN_FILES)
    assert [line.split()[0] for line in text.splitlines() if re.match(r" +\d", line)] == ["1/4", "2/4", "3/4", "4/4"]


def test_the_last_line_is_the_accuracy_of_the_saved_network(trained, data):
    out, text = trained
    last = text.splitlines()[-1]
    assert LAST_LINE.fullmatch(last)
    held_out = train.load(data)
    measured = train.evaluate(exchange.load(out / "model.safetensors"), (held_out.test_images, held_out.test_labels))
    assert last == f"test accuracy: {measured.accuracy:.4f}"
    assert measured.accuracy > 0.9
    assert measured.accuracy == train.History.load(out / "history.jsonl")[-1].val_accuracy


def test_piped_output_is_plain(trained):
    _, text = trained
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_the_same_seed_writes_the_same_network_over_the_old_one(trained, data, tmp_path, capsys):
    for name in RUN_FILES:
        (tmp_path / name).write_text("old")
    arguments = ["train", "--data", str(data), "--epochs", "4", "--batch-size", "16", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    assert all((tmp_path / name).read_bytes() != b"old" for name in RUN_FILES)
    assert main([*arguments, "--seed", "1"]) == 0
    assert (tmp_path / "model.safetensors").read_bytes() != (trained[0] / "model.safetensors").read_bytes()


def test_settings_given_as_options_hold_for_the_command_only(data, tmp_path, capsys):
    before = settings.current()
    place = ["--backend", "array_api_strict", "--engine", "portable, reference", "--precision", "fast"]
    assert main(["train", "--data", str(data), "--epochs", "1", "--out", str(tmp_path), *place]) == 0
    assert "backend array_api_strict, engine portable,reference, precision fast" in capsys.readouterr().out
    assert settings.current() == before


def test_train_reads_a_folder_of_images_in_a_wanted_size(tmp_path, capsys):
    images, labels = corners(30)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "data" / f"corner{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((8 + i, 9)).save(folder / f"{i}.png")
    arguments = ["train", "--data", str(tmp_path / "data"), "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert main([*arguments, "--image-size", "8"]) == 0
    assert "test images 8×8×1, 3 classes" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_on_a_terminal_a_live_bar_runs_below_the_rows(data, tmp_path):
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "xpconv",
        "train",
        "--data",
        data,
        "--epochs",
        "3",
        "--batch-size",
        "8",
        "--out",
        tmp_path,
    ]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([*map(str, command)], stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    os.close(ours)
    text = shown.decode()
    assert "━" in text
    assert re.search(r" \d+/16  \d+:\d\d left  loss \d\.\d{4}  accuracy \d\.\d{4}", text)
    assert "\x1b[" in text
    plain = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines()]
    assert LAST_LINE.fullmatch(plain[-1])
    assert sum(bool(re.search(r"\d/3( +\d+\.\d+){5}$", line)) for line in plain) == 3


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other side has closed it
        return b""


def test_the_live_bar_shows_the_loss_so_far(monkeypatch, capsys):
    class Tally:
        def result(self):
            return train.Evaluation(0.1234, 0.75)

    monkeypatch.setenv("TERM", "xterm")
    live = progress.Bar("test")
    live.on_start(2, 10)
    live.running = Tally()
    live.on_step(1, 1)
    live.on_step(1, 10)
    status = live._bar.tasks[0].fields["status"]
    live.on_end(train.History())
    assert re.fullmatch(r"\d+:\d\d left  loss 0\.1234  accuracy 0\.7500", status)


def test_headings_are_wrapped_to_a_terminal_alone(monkeypatch):
    rows = [("a", "word " * 12 + "a-hyphen"), ("longer", "b")]
    assert console.heading(rows).count("\n") == 1
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    assert console.heading(rows).splitlines() == [
        "a       word word word word word word",
        "        word word word word word word",
        "        a-hyphen",
        "longer  b",
    ]


@pytest.mark.parametrize(
    ("terminal", "term", "live"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_the_bar_is_for_terminals_that_can_show_it(monkeypatch, terminal, term, live):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    assert progress.on_terminal() is live


def test_options_reach_the_training(data, tmp_path, monkeypatch, capsys):
    given = {}

    def fit(net, images, **options):
        given.update(options, net=net)
        net(images[0][:1])
        return train.History(diverged=True)

    monkeypatch.setattr(train, "fit", fit)
    arguments = ["--lr", "0.25", "--seed", "7", "--epochs", "3", "--batch-size", "9", "--out", str(tmp_path)]
    main(["train", "--data", str(data), *arguments, "--clip-norm", "2"])
    assert "gradients clipped to a norm of 2; seed 7" in capsys.readouterr().out
    assert isinstance(given["optimizer"], train.Adam)
    assert (given["optimizer"].lr, given["optimizer"].clip_norm) == (0.25, 2.0)
    assert given["schedule"] == train.schedule.Cosine(warm_up=0.1)
    assert (given["seed"], given["epochs"], given["batch_size"]) == (7, 3, 9)
    drawn = nn.models.lenet(num_classes=3, in_channels=1).initialize(seed=7).parameters()["conv1.weight"].value
    assert np.array_equal(given["net"].parameters()["conv1.weight"].value, drawn)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_loses_nothing(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "3", "--out", tmp_path]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    assert len(train.History.load(tmp_path / "history.jsonl")) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_for_the_output_loses_nothing(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "1", "--out", tmp_path]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES


def test_a_place_that_cannot_be_written_is_told_before_training(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit", None)
    (tmp_path / "curves.png").mkdir()
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 2
    assert f"{str(tmp_path / 'curves.png')!r} is a folder" in capsys.readouterr().err

    def full(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "new" / "model.safetensors") in said
    assert "Read-only file system" in said


# -- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_what_was_learned(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "9999", "--out", tmp_path]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stuck = threading.Timer(60, process.kill)
        stuck.start()
        seen = []
        for line in process.stdout:
            seen.append(line.rstrip())
            if line.lstrip().startswith("2/9999"):
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        stuck.cancel()
    assert process.returncode == 130, errors
    assert errors == STOPPING
    assert LAST_LINE.fullmatch(seen[-1])
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    history = train.History.load(tmp_path / "history.jsonl")
    assert len(history) >= 2
    n = len(history)
    at = seen.index(f"stopped in epoch {n + 1} of 9999; what was learned so far is kept")
    assert seen[at + 1] == f"  --resume goes on after epoch {n}"
    exchange.load(tmp_path / "model.safetensors")


class _Pressing(progress.Lines):
    times = 1

    def on_step(self, epoch: int, step: int) -> None:
        for _ in range(self.times):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_the_first_epoch_still_leaves_every_file(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    (tmp_path / "checkpoint.safetensors").write_text("of an earlier run")
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES - {"checkpoint.safetensors"}
    assert (tmp_path / "history.jsonl").read_text() == ""
    assert LAST_LINE.fullmatch(capsys.readouterr().out.splitlines()[-1])


def test_an_interrupted_run_is_not_tested_where_that_takes_long(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    monkeypatch.setattr("xpconv.cli.train._QUICK", 0.0)
    (tmp_path / "mistakes.png").write_text("of an earlier run")
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES - {"mistakes.png", "checkpoint.safetensors"}
    assert "not tested" in capsys.readouterr().out.splitlines()[-1]


def test_a_second_ctrl_c_leaves_at_once(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    monkeypatch.setattr(_Pressing, "times", 2)
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == STOPPING + "interrupted\n"
    assert not list(tmp_path.iterdir())
