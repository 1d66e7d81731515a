"""The command line as a whole: mistakes of the user's and others, help, and output that goes elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from command import status, xpconv

from xpconv import nn, train
from xpconv.bench import sets
from xpconv.cli import console, info, main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "nowhere"], "error: --data: 'nowhere' is neither a known data set nor a file or folder"),
        (["train", "--model", "alexnet9"], "no model is called 'alexnet9'"),
        (["train", "--image-size", "8"], "a size is for folders of image files"),
        (["train", "--engine", "warp"], "no engine is called 'warp'"),
        (["train", "--backend", "abacus"], "no backend is called 'abacus'"),
        (["train", "--precision", "vague"], "must be 'ieee' or 'fast', not 'vague'"),
        (["train", "--epochs", "0"], "--epochs: must be at least 1"),
        (["train", "--lr", "nan"], "--lr: must be a positive number"),
        (["train", "--batch-size", "many"], "--batch-size: must be an integer, not 'many'"),
        (["train", "--lr", "abc"], "--lr: must be a positive number, not 'abc'"),
        (
            ["train", "--out", __file__],
            f"error: --out: {__file__!r} cannot be made, or is no folder.\n  {__file__}: File",
        ),
        (["train", "--out", f"{__file__}/x"], f"error: --out: '{__file__}/x' cannot be made"),
        (["train", "extra"], "xpconv train: error: unrecognized arguments: extra"),
        (["parity", "--json", "no/where.json"], "--json: there is no folder for 'no/where.json'"),
        (["predict", "nowhere.safetensors", "x.png"], "nowhere.safetensors: No such file or directory"),
        (["predict", __file__, "x.png"], "no safetensors file"),
        (["dance"], "invalid choice: 'dance'"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_mistakes_are_one_message_and_status_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not list(tmp_path.iterdir())


def test_no_command_at_all_is_answered_with_the_help(capsys):
    assert status([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: xpconv")
    assert "xpconv predict xpconv-run" in shown.out
    assert shown.err == ""


def test_a_warning_is_a_line(monkeypatch, capsys):
    def run(options):
        warnings.simplefilter("always")
        warnings.warn("numba: kernels cannot be kept.\n  set it", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(info, "run", run)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "warning: numba: kernels cannot be kept.\n  set it\n"


def test_memory_that_does_not_suffice_is_one_message(tmp_path, monkeypatch, capsys):
    def load(*_, **__):
        raise MemoryError("Unable to allocate 37.3 GiB")

    monkeypatch.setattr(train, "load", load)
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: train: the memory does not suffice.\n  Unable to allocate 37.3 GiB\n  try a smaller")


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["info"], ["parity"], ["bench"]], ids=str)
@pytest.mark.parametrize("width", [60, 80])
def test_help_keeps_to_the_terminal(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert status([*command, "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < width


def test_a_mistake_in_the_environment_is_told_before_anything_begins(tmp_path):
    done = xpconv("train", cwd=tmp_path, env={**os.environ, "XPCONV_PRECISION": "vague"})
    assert done.returncode == 2
    assert "environment variable XPCONV_PRECISION='vague'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_option_goes_before_its_variable(tmp_path):
    options = ("parity", "--backend", "numpy", "--engine", "portable", "--op", "relu")
    done = xpconv(*options, cwd=tmp_path, env={**os.environ, "XPCONV_BACKEND": "abacus", "XPCONV_ENGINE": "moon"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "numpy/portable" in done.stdout


@pytest.mark.parametrize(("command", "module"), [("train", "matplotlib"), ("predict", "PIL")])
def test_missing_packages_are_told_before_any_work(command, module, tmp_path, monkeypatch, capsys):
    find = console.importlib.util.find_spec
    monkeypatch.setattr(console.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    monkeypatch.setattr(train, "load", None)
    monkeypatch.chdir(tmp_path)
    assert main([command, *(["m", "i"] if command == "predict" else [])]) == 2
    assert "pip install 'xpconv[train]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_digits_without_scikit_learn_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 2
    assert "pip install 'xpconv[train]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bug_keeps_its_traceback(data, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(train, "fit", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "--data", str(data), "--out", str(tmp_path)])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "xpconv", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_output_of_few_characters_will_do():
    done = xpconv("info", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith("xpconv ")


def test_help_names_every_set_of_the_benchmark(capsys):
    assert status(["bench", "--help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in sets.SETS if f"\n  {name} " not in told] == []


def test_help_names_every_model(capsys):
    assert status(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in nn.models.MODELS:
        assert f"{name}," in shown or f"{name} (default" in shown


def test_version(capsys):
    assert status(["--version"]) == 0
    assert re.fullmatch(r"xpconv \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_package_runs_as_a_module():
    assert "xpconv train" in xpconv("--help").stdout
    assert (Path(console.__file__).parents[1] / "__main__.py").exists()
