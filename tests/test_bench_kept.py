"""What ``xpconv bench`` measured is kept: by a run that was stopped, in a file that is gone on with and shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benches import bench, measured, quickly  # noqa: F401 - a fixture

from xpconv import FileError
from xpconv.bench import facts, report, run
from xpconv.bench.result import still_to_do
from xpconv.cli import main

RESULTS = Path(__file__).parent.parent / "bench" / "results"


@pytest.fixture
def result():
    return measured()


def test_an_interrupted_run_keeps_what_it_has(tiny, tmp_path, monkeypatch, capsys):
    prepared = run._prepared

    def interrupted(case, *rest):
        if case.direction == "backward":
            raise KeyboardInterrupt
        return prepared(case, *rest)

    monkeypatch.setattr(run, "_prepared", interrupted)
    assert bench("--against", "none", "--json", tmp_path / "b.json") == 130
    assert "interrupted: 2 of 4 rows were measured" in capsys.readouterr().out
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["complete"] is False
    assert len(found["rows"]) == 2


def alike(one, other):
    """Whether two documents say the same: times are written with four digits, and what follows from them may differ."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == pytest.approx(other, rel=2e-3) if isinstance(one, float) else one == other


def test_a_run_goes_on_where_another_stopped(tiny, tmp_path, capsys):
    path = tmp_path / "b.json"
    assert bench("--against", "im2col", "--only", "5²", "--direction", "forward", "--json", path) == 0
    (first,) = json.loads(path.read_text())["rows"]
    assert bench("--against", "im2col", "--json", path, "--resume") == 0
    assert "4 rows, 2 rounds; 1 of them there already" in capsys.readouterr().out
    found = json.loads(path.read_text())
    for row in (found["rows"][0], first):  # what follows from a peak that was measured anew
        row.pop("bound_by")
        for outcome in row["sides"].values():
            outcome.pop("fraction_of_peak", None)
    assert alike(found["rows"][0], first)
    assert len({(row["name"], row["direction"]) for row in found["rows"]}) == len(found["rows"]) == 4
    assert found["complete"] is True


def test_what_failed_is_measured_again_and_what_is_missing_is_told(result, tmp_path):
    names = [row.case.name for row in result.rows]
    assert still_to_do(result.plan.cases, result) == [result.plan.cases[2]]  # the one whose peer failed
    result.rows.pop()
    assert (result.complete, result.missing) == (False, names[2:])
    assert report.document(result)["missing"] == names[2:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "3", "--against", "none"], "rounds: 2 there, 3 here"),
        (["--rounds", "2", "--against", "im2col"], "the file compares with other peers"),
    ],
)
def test_a_run_does_not_go_on_with_another_measurement(arguments, said, tiny, tmp_path, capsys):
    path = tmp_path / "b.json"
    assert bench("--against", "none", "--only", "5²", "--json", path) == 0
    before = path.read_text()
    assert main(["bench", *arguments, "--json", str(path), "--resume"]) == 2
    assert said in capsys.readouterr().err
    assert path.read_text() == before


def test_pieces_of_two_commits_name_both():
    one, two = ({"commit": c, "date": "2026-01-01", "cpu": "x"} for c in ("a1", "b2"))
    assert facts.joined(one, two) == {"commit": "a1, b2", "date": "2026-01-01", "cpu": "x"}
    assert facts.joined(facts.joined(one, two), two)["commit"] == "a1, b2"


def test_a_document_is_read_as_it_was_written(result, tmp_path):
    result.rows[0].sides["torch"].errors["b"] = 3.0
    report.write(result, tmp_path / "b.json")
    again = report.read(tmp_path / "b.json")
    assert alike(report.document(again), report.document(result))
    assert [row.case.arrays().keys() for row in again.rows] == [row.case.arrays().keys() for row in result.rows]


def test_committed_results_are_read():
    for name in ("cpu.json", "cpu_steps.json", "cpu_inference.json"):
        written = json.loads((RESULTS / name).read_text())["rows"]
        for row, entry in zip(report.document(report.read(RESULTS / name))["rows"], written, strict=True):
            assert alike(row["ratio"], entry["ratio"])
            assert (row["name"], row["x"], row["flops"]) == (entry["name"], entry["x"], entry["flops"])


def test_showing_an_earlier_run_loads_no_engine_that_compiles():
    code = (
        "import sys; from xpconv.cli import main; main(['bench', '--show', sys.argv[1]]);"
        "print([name for name in ('numba', 'llvmlite', 'cupy', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(RESULTS / "cpu_steps.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("\n[]\n")


def test_an_earlier_run_is_shown_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.cli.bench.measure", None)
    status = main(["bench", "--show", str(RESULTS / "cpu_steps.json"), "--plot", str(tmp_path / "p.png")])
    assert status == 0
    assert "ResNet-20 32²" in capsys.readouterr().out
    assert (tmp_path / "p.png").stat().st_size > 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"what": "xpconv bench", "format": 0}', '{"what": 1, "format": 1}'])
def test_another_file_is_not_gone_on_with(text, tmp_path, capsys):
    (tmp_path / "b.json").write_text(text)
    assert main(["bench", "--against", "none", "--json", str(tmp_path / "b.json"), "--resume"]) == 2
    assert f"'{tmp_path / 'b.json'}'" in capsys.readouterr().err


def test_a_committed_result_of_another_kind_says_what_it_lacks():
    with pytest.raises(FileError) as error:
        report.read(RESULTS / "overhead.json")
    rule, evidence = str(error.value).split("\n")
    assert rule == f"bench: '{RESULTS / 'overhead.json'}' was not written by xpconv bench."
    assert evidence == "  it has no 'format'"
