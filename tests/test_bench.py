"""``xpconv bench``: what fails has a reason, a report has what a reader needs, mistakes are told before any work.

No time is asserted, and the portable engine stands for all.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from benches import TINY, bench, quickly  # noqa: F401 - a fixture

from xpconv import settings
from xpconv.bench import candidate, sets, sides, worker
from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.sides import ours
from xpconv.cli import main


@pytest.fixture
def side(monkeypatch, tmp_path):
    """Make a side of some source text, to be named as a peer."""

    def make(name, source):
        (tmp_path / f"side_{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(sides.SIDES, name, sides.Side(f"side_{name}", "numpy", "numpy"))
        return name

    return make


WRONG = """
    from xpconv.bench.candidate import Candidate
    from xpconv.bench.sides import ours

    version = dict

    def make(case, arrays):
        (right,) = ours.make(case, arrays)
        return [Candidate("w", right.call, lambda: {k: 1.01 * v for k, v in right.answers().items()})]
"""


PARTLY = """
    from xpconv.bench.candidate import Candidate
    from xpconv.bench.sides import ours

    version = dict

    def make(case, arrays):
        def broken():
            raise OSError("no")

        return [Candidate("broken", broken, broken), *ours.make(case, arrays)]
"""


FORGETFUL = """
    from xpconv.bench.sides import ours

    version = dict

    def make(case, arrays):
        return ours.make(case, {**arrays, "conv1.bias": 0 * arrays["conv1.bias"]})
"""


BROKEN = """
    import os

    version = dict

    def make(case, arrays):
        if case.direction == "backward":
            os._exit(3)
        raise OSError(2, "cannot open", "/srv/somebody/secret/weights.bin")
"""


def test_a_wrong_answer_is_refused_a_time(tiny, side, tmp_path, capsys):
    name = side("wrong", WRONG)
    assert bench("--against", name, "--only", "5²", "--json", tmp_path / "b.json") == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^    wrong: wrong answer, in units of the permitted error: w \S+$", out, re.MULTILINE)) == 2
    for row in json.loads((tmp_path / "b.json").read_text())["rows"]:
        assert list(row["sides"]["wrong"]) == ["failed"]
        assert row["ratio"]["wrong"] is None
        assert row["sides"]["xpconv"]["ms"] > 0


def test_a_network_that_forgets_a_bias_is_refused_a_time(side, tmp_path, capsys):
    name = side("forgetful", FORGETFUL)
    assert bench("--set", "inference", "--only", "lenet 28", "--against", name, "--json", tmp_path / "b.json") == 0
    assert "    forgetful: wrong answer" in capsys.readouterr().out
    found = json.loads((tmp_path / "b.json").read_text())
    (row,) = found["rows"]
    assert (row["name"], row["direction"], row["x"]) == ("LeNet 28²", "forward", [1, 28, 28, 1])
    assert "wrong answer" in row["sides"]["forgetful"]["failed"]
    assert row["sides"]["xpconv"]["ms"] > 0
    assert "train.Predictor" in found["how"]["inference"]
    assert "forward" not in found["how"]  # which is said of single ops


def test_a_side_that_fails_shows_the_reason_and_no_path(tiny, side, tmp_path, capsys):
    name = side("broken", BROKEN)
    assert bench("--against", name, "--only", "5²", "--json", tmp_path / "b.json") == 0
    forward, backward = (row["sides"]["broken"] for row in json.loads((tmp_path / "b.json").read_text())["rows"])
    assert "FileNotFoundError" in forward["failed"]
    assert "weights.bin" in forward["failed"]
    assert "somebody" not in forward["failed"]
    assert backward == {"failed": "its process died (exit status 3)"}
    assert "    broken: its process died" in capsys.readouterr().out


def test_where_one_of_two_candidates_fails_the_other_is_timed(tiny, side, tmp_path, capsys):
    name = side("partly", PARTLY)
    assert bench("--against", name, "--only", "5²", "--json", tmp_path / "b.json") == 0
    for row in json.loads((tmp_path / "b.json").read_text())["rows"]:
        assert list(row["sides"]["partly"]["times_ms"]) == ["numpy"]


def test_xpconv_failing_is_an_exit_status(tiny, side, capsys):
    side("xpconv", BROKEN)
    assert bench("--against", "none", "--direction", "forward") == 1
    assert "xpconv failed in 2 of 2 rows" in capsys.readouterr().out


def test_the_report_has_what_a_reader_needs(tiny, tmp_path, capsys):
    path = tmp_path / "b.json"
    assert bench("--against", "im2col", "--threads", 1, "--json", path) == 0
    found = json.loads(path.read_text())
    assert found["complete"] is True
    assert (found["backend"], found["engine"], found["threads"], found["rounds"]) == ("numpy", ["portable"], 1, 2)
    assert {"date", "cpu", "cores", "python", "versions", "ceiling", "how", "summary"} <= set(found)
    assert found["ceiling"]["gflops"] > 0
    assert found["versions"]["numpy"] == np.__version__
    row = found["rows"][0]
    assert (row["set"], row["name"], row["direction"]) == ("tiny", "5² 3→4 3×3", "forward")
    assert row["x"] == [2, 5, 5, 3]
    ours = row["sides"]["xpconv"]
    assert ours["quartiles_ms"][0] <= ours["ms"] <= ours["quartiles_ms"][1]
    assert len(ours["times_ms"]["numpy"]) >= 2
    assert ours["error"] <= 1
    assert ours["engine"]
    assert row["ratio"]["im2col"] == pytest.approx(row["sides"]["im2col"]["ms"] / ours["ms"], rel=1e-2)
    assert found["rows"][1]["sides"]["im2col"] == {"not_offered": "no groups"}
    assert found["summary"][0]["rows"] == 1
    text = path.read_text()
    assert str(tmp_path) not in text
    assert not re.search(r"[\"' ]/\w+/", text)


def test_settings_and_threads_hold_for_the_command_only(tiny, capsys):
    before = settings.current()
    assert bench("--against", "none", "--threads", 1, "--engine", "portable,reference", "--only", "5²") == 0
    assert "engine portable,reference" in capsys.readouterr().out
    assert settings.current() == before


def test_memory_is_measured_where_the_system_can_tell(monkeypatch, tmp_path, capsys):
    pixels = Layer("tiny", "large", "conv", (128, 128, 4), {"w": (3, 3, 4, 8)}, {"padding": 1}, batch=8)
    monkeypatch.setitem(sets.SETS, "quick", lambda: [pixels])
    assert bench("--against", "none", "--direction", "backward", "--memory", "--json", tmp_path / "b.json") == 0
    found = json.loads((tmp_path / "b.json").read_text())["rows"][0]["sides"]["xpconv"]
    if sys.platform == "linux":
        assert found["memory_bytes"] > 4 * 8 * 128 * 128 * 4  # dx alone


def test_the_engine_that_answers_is_named():
    case = Case(TINY[6], 2, "forward")
    (candidate,) = ours.make(case, case.arrays())
    assert candidate.note == "portable"


def test_reasons_are_one_line():
    assert worker.reason(ValueError("a\n  b\n")) == "ValueError: a · b"
    assert worker.reason(OSError("in C:\\Users\\me\\x.bin and /home/me/y.bin")) == "OSError: in x.bin and y.bin"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "googlenet"], "no set is called 'googlenet'"),
        (["--set", ""], "name at least one set"),
        (["--only", "17³"], "no row is left to be measured"),
        (["--direction", "sideways"], "no direction is called 'sideways'"),
        (["--direction", "step", "--set", "pools"], "no row is left"),
        (["--set", "steps", "--dtype", "complex64"], "complex numbers have no other ops than conv"),
        (["--against", "caffe"], "no peer is called 'caffe'"),
        (["--batch", "8,x"], "must be an integer, not 'x'"),
        (["--threads", "0"], "must be at least 1"),
        (["--backend", "abacus"], "no backend is called 'abacus'"),
        (["--against", "none", "--plot", "p.png"], "there is no peer"),
        (["--json", "nowhere/b.json"], "there is no folder for 'nowhere/b.json'"),
        (["--json", "."], "is a folder"),
        (["--resume"], "name it: --json FILE"),
        (["--show", "b.json", "--json", "c.json"], "measures nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_message_before_any_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xpconv.cli.bench.measure", None, raising=False)
    try:
        status = main(["bench", *arguments])
    except SystemExit as exit_:  # argparse's own
        status = exit_.code
    assert status == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_peer_that_is_missing_says_what_to_install(name, monkeypatch, capsys):
    monkeypatch.setattr(sides, "is_installed", lambda asked: asked != name)
    assert main(["bench", "--against", name]) == 2
    assert "pip install 'xpconv[bench]'" in capsys.readouterr().err


def test_without_pytorch_xpconv_is_timed_alone(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sides, "is_installed", lambda name: name not in ("torch", "jax"))
    assert bench("--only", "5²", "--direction", "forward") == 0
    out = capsys.readouterr().out
    assert "beside   nothing (not installed: torch, jax; pip install 'xpconv[bench]')" in out
    assert "ratio" not in out


def test_a_gpu_that_is_not_here_is_told_plainly(capsys):
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    assert main(["bench", "--backend", "cupy"]) == 2
    assert "pip install 'xpconv[cuda" in capsys.readouterr().err


def test_an_array_of_a_device_is_waited_for():
    class Device:
        waited = 0

        def synchronize(self):
            self.waited += 1

    ndarray = type("ndarray", (), {"__module__": "cupy", "device": Device()})
    x = ndarray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidate, "library", lambda x: "cupy")
        candidate.waiting(x)(None)
    assert x.device.waited == 1


@pytest.mark.skipif(os.name != "posix", reason="processes have no parent there")
def test_a_side_ends_with_the_process_that_gives_its_orders():
    """Not with its orders alone, of which one may take minutes: here they never end."""
    start = "command = [sys.executable, '-m', 'xpconv.bench.worker', str(os.getpid())]; subprocess.Popen(command)"
    orders, ours = os.pipe()
    try:  # it has the same pipes, so that this waits for both
        done = subprocess.run(
            [sys.executable, "-c", f"import os, subprocess, sys; {start}"],
            stdin=orders,
            capture_output=True,
            timeout=60,
        )
    finally:
        os.close(orders)
        os.close(ours)
    assert done.returncode == 0
