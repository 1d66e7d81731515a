"""What ``xpconv bench`` shows: its table, its plot, and what the machine could reach at most."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace

import pytest
from benches import CONV, TINY, measured
from PIL import Image

from xpconv.bench import ceiling, chart, report, table
from xpconv.bench.case import Case
from xpconv.bench.result import Outcome, Plan, Result
from xpconv.cli import main


@pytest.fixture
def result():
    return measured()


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
    nothing = "\n".join(table.closing_lines(replace(result, rows=[])))
    assert "0 of 3 rows were measured" in nothing
    assert "ratio" not in nothing


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
        row.sides["torch"] = Outcome(failed="not one")
    report.write(result, tmp_path / "b.json")
    assert main(["bench", "--show", str(tmp_path / "b.json"), "--plot", str(tmp_path / "p.png")]) == 0
    assert "p.png is not drawn: no row has the time of a peer\n" in capsys.readouterr().out
    assert not (tmp_path / "p.png").exists()


def test_the_plot_of_nothing_is_a_picture(tmp_path):
    chart.draw(Result(Plan([], ["torch"])), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_ticks_are_plain_and_apart():
    assert chart._ticks(0.45, 2.6) == {1.0: "1", 2.0: "2", 0.5: "1/2", 1.5: "1.5", 1 / 1.5: "1/1.5"}
    assert set(chart._ticks(0.01, 300).values()) >= {"1", "10", "1/10", "100"}


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
