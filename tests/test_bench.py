"""``xpconv bench``: what it measures is judged, what fails has a reason, what was measured is kept.

No time is asserted. The portable engine stands for all: the laws hold the others to their answers.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xpconv import settings
from xpconv.bench import (
    architectures,
    candidate,
    ceiling,
    chart,
    facts,
    process,
    report,
    run,
    shapes,
    sides,
    table,
    truth,
    worker,
)
from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.sides import ours
from xpconv.cli import main

RESULTS = Path(__file__).parent.parent / "bench" / "results"
CONV = Layer("tiny", "5² 3→4 3×3", "conv", (5, 5, 3), {"w": (3, 3, 3, 4), "b": (4,)}, {"padding": 1}, batch=2)
TINY = (
    CONV,
    Layer(
        "tiny", "grouped", "conv", (6, 6, 40), {"w": (3, 3, 2, 40)}, {"stride": 2, "padding": 1, "groups": 20}, batch=3
    ),
    Layer("tiny", "wide", "conv", (4, 4, 40), {"w": (1, 1, 40, 33)}, batch=3),
    Layer("tiny", "1-D", "conv", (9, 3), {"w": (3, 3, 4), "b": (4,)}, {"padding": 1}, batch=2),
    Layer("tiny", "3-D", "conv", (3, 4, 4, 2), {"w": (3, 3, 3, 2, 3)}, {"padding": 1}, batch=2),
    Layer("tiny", "max", "max_pool", (7, 7, 3), options={"kernel_size": 3, "stride": 2, "padding": 1}, batch=2),
    Layer("tiny", "mean", "global_avg_pool", (4, 4, 3), batch=2),
    Layer("tiny", "norm", "batch_norm", (4, 4, 20), {"gamma": (20,), "beta": (20,)}, batch=2),
    Layer("tiny", "linear", "linear", (7,), {"w": (7, 5), "b": (5,)}, batch=3),
    Layer("tiny", "loss", "softmax_cross_entropy", (10,), batch=4),
    Layer("tiny", "LeNet", "step", (8, 8, 1), options={"model": "lenet"}, batch=4),
    Layer("tiny", "U-Net", "step", (8, 16, 3), options={"model": "unet"}, batch=2),
    Layer("tiny", "ReLU", "relu", (5,), batch=3),
    Layer("tiny", "SiLU", "silu", (5, 5, 3), batch=3),
    Layer("tiny", "GELU", "gelu", (5, 5, 3), batch=3),
    Layer("tiny", "PReLU", "prelu", (5, 5, 3), {"slope": (3,)}, batch=3),
    Layer("tiny", "layer norm", "layer_norm", (4, 4, 20), {"gamma": (20,), "beta": (20,)}, batch=3),
    Layer("tiny", "group norm", "group_norm", (4, 4, 6), {"gamma": (6,), "beta": (6,)}, {"num_groups": 3}, batch=2),
    Layer("tiny", "instance norm", "instance_norm", (4, 4, 3), {"gamma": (3,), "beta": (3,)}, batch=2),
    Layer("tiny", "response norm", "local_response_norm", (4, 4, 6), options={"size": 5}, batch=3),
    Layer("tiny", "up", "conv_transpose", (4, 3, 3), {"w": (2, 2, 5, 3), "b": (5,)}, {"stride": 2}, batch=2),
    Layer("tiny", "bilinear", "resize", (4, 4, 3), options={"output_size": 7, "mode": "bilinear"}, batch=3),
    Layer("tiny", "reflect", "pad", (4, 5, 3), options={"padding": 2, "mode": "reflect"}, batch=3),
    Layer("tiny", "SGD", "update", (20000,), options={"optimizer": "SGD"}, batch=1),
    Layer("tiny", "Adam", "update", (100,), options={"optimizer": "Adam"}, batch=1),
)
CASES = [Case(x, x.batch, d) for x in TINY for d in shapes._OF_OP.get(x.op, ("forward", "backward"))]


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(run, "_TURN", 0.0)
    monkeypatch.setattr(run, "_SETTLE", 0.0)
    settings.use_engine("portable")


@pytest.fixture
def tiny(monkeypatch):
    """A set of tiny rows, which is the default."""
    for name in ("tiny", "quick"):
        monkeypatch.setitem(shapes.SETS, name, lambda: list(TINY[:2]))


@pytest.fixture
def side(monkeypatch, tmp_path):
    """Make a side of some source text, to be named as a peer."""

    def make(name, source):
        (tmp_path / f"side_{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(sides.SIDES, name, sides.Side(f"side_{name}", "numpy", "numpy"))
        return name

    return make


# -- what is measured ----------------------------------------------------------------------------------------------


def test_the_convolutions_of_the_networks_are_those_published():
    resnet, mobile = architectures.resnet50(), architectures.mobilenet_v2()
    assert (len(resnet), len(mobile)) == (23, 30)
    assert len({conv.name for conv in resnet}) == 23
    assert resnet[0] == (224, 3, 64, 7, 2, 1)
    assert {conv.size for conv in resnet} == {224, 56, 28, 14, 7}
    assert (7, 2048, 512, 1, 1, 1) in resnet
    assert (56, 256, 512, 1, 2, 1) in resnet
    assert mobile[-1] == (7, 320, 1280, 1, 1, 1)
    assert (112, 96, 96, 3, 2, 96) in mobile
    assert all(conv.groups in (1, conv.channels) for conv in mobile)


def test_multiply_adds_of_resnet50_are_those_published():
    every = list(architectures.every_resnet50())
    assert len(every) == 53
    total = sum((c.size // c.stride) ** 2 * c.kernel**2 * c.channels * c.out // c.groups for c in every)
    assert total == pytest.approx(4.09e9, rel=0.01)  # torchvision's table, without the last linear layer


def test_every_set_has_rows_of_distinct_names():
    for name, make in shapes.SETS.items():
        layers = make()
        assert layers, name
        assert len({(layer.set, layer.name) for layer in layers}) == len(layers)
    assert len(shapes.quick()) == len(shapes._QUICK)


def test_flops_count_two_for_each_multiply_add():
    forward, backward = (Case(CONV, 2, d).flops for d in ("forward", "backward"))
    assert forward == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)
    assert backward == 2 * forward
    assert Case(TINY[1], 3, "forward").flops == 2 * (3 * 3 * 3 * 40) * (3 * 3 * 2)
    assert Case(TINY[7], 2, "forward").flops is None


def test_traffic_counts_each_array_once():
    assert Case(TINY[7], 2, "forward").bytes == 4 * (2 * 2 * 4 * 4 * 20 + 2 * 20)
    x, y, w = 2 * 5 * 5 * 3, 2 * 5 * 5 * 4, 3 * 3 * 3 * 4 + 4
    assert Case(CONV, 2, "forward").bytes == 4 * (x + y + w)
    assert Case(CONV, 2, "backward").bytes == 4 * (2 * x + y + 2 * w)


def test_choosing_rows(tiny):
    assert [case.name for case in shapes.chosen(["tiny"])] == [
        "tiny: 5² 3→4 3×3, batch 2, forward",
        "tiny: grouped, batch 3, forward",
        "tiny: 5² 3→4 3×3, batch 2, backward",
        "tiny: grouped, batch 3, backward",
    ]
    assert [case.batch for case in shapes.chosen(["tiny"], [1, 7], ["forward"], "grouped")] == [1, 7]
    assert {case.direction for case in shapes.chosen(["steps"])} == {"step"}
    assert len(shapes.chosen(["tiny", "quick"])) == 4  # a row that is in two sets comes once


# -- what is right, and what is not --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked():
    """Ask a side in its own process, as a run does."""
    with ExitStack() as stack:
        started = {}

        def ask(name, order, *arguments):
            if name not in started:
                started[name] = stack.enter_context(closing(process.Process(name, settings.current())))
            return started[name].ask(order, *arguments)

        yield ask


def right_answers(case):
    """What xpconv answers, in this process."""
    (candidate,) = ours.make(case, case.arrays())
    return candidate.answers()


@pytest.mark.parametrize("name", ["xpconv", "torch", "jax", "im2col"])
@pytest.mark.parametrize("case", named(CASES))
def test_every_side_answers_rightly(name, case, asked):
    if not sides.is_installed(name):
        pytest.skip(f"{name} is not installed")
    try:
        offered = asked(name, "prepare", case)
    except process.AbsentError as why:
        assert name in ("im2col", "jax")
        pytest.skip(str(why))
    for found in offered:
        assert truth.judge(case, case.arrays(), found["answers"]) <= 1


@pytest.mark.parametrize("case", named(CASES))
def test_an_answer_that_is_off_is_found_out(case):
    answers = right_answers(case)
    for name in answers:
        for spoil in (_off, _nothing, _shifted):
            spoiled = {**answers, name: spoil(answers[name])}
            assert truth.judge(case, case.arrays(), truth.extract(case, spoiled)) > 1, (name, spoil.__name__)


def _off(x):
    return x + np.float32(1e-2) * np.maximum(np.abs(x), np.float32(0.1))


def _nothing(x):
    return np.full_like(x, np.nan)


def _shifted(x):
    return x - np.float32(0.1)


def test_an_answer_that_is_missing_is_wrong():
    case = Case(CONV, 2, "backward")
    answers = right_answers(case)
    del answers["dw"]
    assert truth.judge(case, case.arrays(), truth.extract(case, answers)) == np.inf


def test_parts_hold_the_first_and_the_last():
    assert truth._spread(100, 4).tolist() == [0, 33, 66, 99]
    assert truth._spread(3, 16).tolist() == [0, 1, 2]
    (part,) = truth.parts(Case(shapes.resnet50()[-1], 32, "forward"))
    assert part.answers["y"][0].tolist() == [0, 31]
    assert part.answers["y"][-1][[0, -1]].tolist() == [0, 511]


# -- the run -------------------------------------------------------------------------------------------------------


def bench(*arguments):
    return main(["bench", "--rounds", "2", *map(str, arguments)])


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
    assert run.still_to_do(result.plan.cases, result) == [result.plan.cases[2]]  # the one whose peer failed
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
    for name in ("cpu.json", "cpu_steps.json"):
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
    assert "'b.json'" in capsys.readouterr().err


def test_memory_is_measured_where_the_system_can_tell(monkeypatch, tmp_path, capsys):
    pixels = Layer("tiny", "large", "conv", (128, 128, 4), {"w": (3, 3, 4, 8)}, {"padding": 1}, batch=8)
    monkeypatch.setitem(shapes.SETS, "quick", lambda: [pixels])
    assert bench("--against", "none", "--direction", "backward", "--memory", "--json", tmp_path / "b.json") == 0
    found = json.loads((tmp_path / "b.json").read_text())["rows"][0]["sides"]["xpconv"]
    if sys.platform == "linux":
        assert found["memory_bytes"] > 4 * 8 * 128 * 128 * 4  # dx alone


def test_the_engine_that_answers_is_named():
    case = Case(TINY[6], 2, "forward")
    (candidate,) = ours.make(case, case.arrays())
    assert candidate.note == "portable"


# -- what is shown -------------------------------------------------------------------------------------------------


def outcome(seconds, error=0.1, **facts):
    return run.Outcome(times={"a": list(seconds)}, errors={"a": error}, **facts)


@pytest.fixture
def result():
    """Two rows measured and one that failed, beside one peer."""
    cases = [Case(layer, 2, "forward") for layer in TINY[:3]]
    ceiling = {"gflops": 100.0, "gbytes_per_s": 10.0, "how": "so"}
    made = run.Result(
        run.Plan(cases, ["torch"]), ceiling, {"versions": {"torch": "2"}, "rounds": 2, "dtype": "float32"}
    )
    for case, theirs in zip(cases, ((0.004, 0.008, 0.006), (0.001,), None), strict=True):
        peer = run.Outcome(failed="RuntimeError: no") if theirs is None else outcome(theirs)
        made.rows.append(run.Row(case, {"xpconv": outcome((0.002, 0.002, 0.5)), "torch": peer}))
    return made


def test_the_table_is_aligned_and_says_why(result):
    shown = table.Table(result.plan.cases, ["torch"])
    lines = [line for row in result.rows for line in shown.lines(row, result.ceiling)]
    blank, head, group, *rows, reason = lines
    assert (blank, group) == ("", "tiny, forward, batch 2")
    assert head.split() == ["xpconv", "ms", "±", "GFLOP/s", "peak", "error", "torch", "ms", "±", "ratio"]
    assert {len(line) for line in (head, *rows)} == {len(head)}
    assert rows[0].split()[-3:] == ["6.00", "17%", "3.00"]  # of 4, 6 and 8 ms the quartiles are 5 and 7
    assert rows[2].split()[-3:] == ["-", "-", "-"]
    assert reason == "    torch: RuntimeError: no"


@pytest.mark.parametrize(("width", "spared"), [(200, set()), (80, {"±"}), (68, {"±", "GFLOP/s", "error"})])
def test_the_table_keeps_to_the_terminal(result, width, spared):
    layer = replace(TINY[0], name="56² 144→144 3×3 /2 depthwise")
    row = replace(result.rows[0], case=Case(layer, 2, "forward"))
    (_, head, _, line) = table.Table([row.case], ["torch", "jax"] if width == 200 else ["torch"], width=width).lines(
        replace(row, sides={**row.sides, "jax": row.sides["torch"]}), result.ceiling
    )
    assert len(head) == len(line) <= width
    assert {"xpconv", "±", "GFLOP/s", "peak", "error", "torch", "ratio"} - set(head.split()) == spared
    assert line.startswith("  56² 144→144 3×3 /2 dept")
    assert ("…" in line) == (width == 80)


def test_the_summary_counts_and_averages(result):
    (entry,) = table.summary(result)
    assert (entry["rows"], entry["below_1"], entry["least"]) == (2, 1, 0.5)
    assert entry["geometric_mean"] == pytest.approx((3 * 0.5) ** 0.5, abs=1e-3)
    text = "\n".join(table.closing_lines(result))
    assert "below 1 in 1 of 2" in text
    assert "interrupted" not in text


def test_the_share_of_the_peak_is_of_what_bounds_the_case():
    fast_memory, slow_memory = ({"gflops": 100.0, "gbytes_per_s": rate} for rate in (1e6, 1e-3))
    case = Case(CONV, 2, "forward")
    assert table.least_seconds(case, fast_memory) == (case.flops / 1e11, "arithmetic")
    assert table.least_seconds(case, slow_memory) == (case.bytes / 1e6, "memory")
    assert table.least_seconds(case, {"failed": "no"}) is None


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1234.5, "1234"), (12.34, "12.3"), (1.2, "1.20"), (0.02, "0.020")]
)
def test_numbers_have_three_digits(value, text):
    assert table.number(value) == text


def test_one_of_two_candidates_may_be_refused(result):
    row = result.rows[0]
    row.sides["torch"].errors["b"] = 3.0
    assert "    torch: wrong answer, in units of the permitted error: b 3" in table.Table([], ["torch"]).lines(row, {})
    facts = report.document(result)["rows"][0]["sides"]["torch"]
    assert facts["refused"].endswith("b 3")
    assert facts["ms"] == 6


def test_the_plot_has_a_dot_for_each_ratio(result, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(chart, "_dots", lambda axes, at, row, peers: drawn.append((at, row.case.layer.name)))
    chart.draw(result, tmp_path / "p.png")
    assert drawn == [(1, "5² 3→4 3×3"), (2, "grouped"), (3, "wide")]
    with Image.open(tmp_path / "p.png") as image:
        assert min(image.size) > 200


def test_a_plot_without_ratios_is_not_drawn(result, tmp_path, capsys):
    for row in result.rows:
        row.sides["torch"] = run.Outcome(failed="not one")
    report.write(result, tmp_path / "b.json")
    assert main(["bench", "--show", str(tmp_path / "b.json"), "--plot", str(tmp_path / "p.png")]) == 0
    assert "p.png is not drawn: no row has the time of a peer\n" in capsys.readouterr().out
    assert not (tmp_path / "p.png").exists()


def test_the_plot_of_nothing_is_a_picture(tmp_path):
    chart.draw(run.Result(run.Plan([], ["torch"])), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_ticks_are_plain_and_apart():
    assert chart._ticks(0.45, 2.6) == {1.0: "1", 2.0: "2", 0.5: "1/2", 1.5: "1.5", 1 / 1.5: "1/1.5"}
    assert set(chart._ticks(0.01, 300).values()) >= {"1", "10", "1/10", "100"}


# -- the machine, the options --------------------------------------------------------------------------------------


def test_the_ceiling_has_a_measure_without_an_engine_of_its_own(monkeypatch):
    monkeypatch.setattr(ceiling, "CHAINS", {"numpy": ("portable",)})
    monkeypatch.setattr(ceiling, "_SIZE", 64)
    monkeypatch.setattr(ceiling, "_BYTES", 2**16)
    found = ceiling.measured()
    assert found["gflops"] > 0
    assert found["gbytes_per_s"] > 0
    assert "matrices" in found["how"]


@pytest.mark.parametrize("measure", ["gigaflops", "gigabytes"])
def test_the_compiled_engine_measures_its_own_ceiling(measure, monkeypatch):
    pytest.importorskip("llvmlite")
    own = importlib.import_module("xpconv.engines.numba.ceiling")
    for name, less in (("_REPEATS", 2), ("_ROUNDS", 100), ("_PIECES", 4)):
        monkeypatch.setattr(own, name, less)
    assert all(getattr(own, measure)(threads) > 0 for threads in (1, 2))  # each checks what it computed


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
