"""Rows whose times disagree are measured again, by a rule that no side can gain from: all times here are made up."""

from __future__ import annotations

import json

import pytest
from benches import TINY, measured

from xpconv import FileError, settings
from xpconv.bench import facts, report, run, sets, steady
from xpconv.bench.candidate import Candidate
from xpconv.bench.devices import FEW, Device, Timed
from xpconv.bench.result import Outcome
from xpconv.cli import main

CALM = [1.0, 1.1, 1.0]  # milliseconds
SHARED = [2.0, 2.1, 2.0]


@pytest.mark.parametrize(
    ("turns", "unsteady"),
    [
        ([CALM, [1.3, 1.4, 1.4]], False),
        ([CALM, [1.5, 1.6, 1.6]], True),
        ([CALM, SHARED], True),
        ([SHARED, CALM], True),
        ([SHARED, SHARED], False),  # what slows all alike cannot be seen
        ([SHARED, CALM, CALM, CALM], False),
        ([SHARED, CALM, CALM, SHARED], True),
        ([SHARED, CALM, CALM, SHARED, CALM, CALM], False),
        ([[15.98, 19.78], [7.966, 15.98, 16.0]], True),  # of a row whose ratio was 62: slices of the system's scheduler
        ([[14.26, 13.67, 15.99], [11.99, 15.98, 15.98]], True),  # and 71
        ([[14.26, 13.67, 15.99], [11.99, 13.98, 15.98]], False),  # half of them are not most
        ([[1.0, 1.0, 9.0]], False),
        ([[1.0, 2.0, 2.0]], True),
    ],
)
def test_the_rule(turns, unsteady):
    assert steady.unsteady(turns, 4.0) is unsteady


def test_calls_below_a_tick_end_with_none_and_without_ticks_none_do():
    assert not steady.unsteady([[0.01, 0.01, 0.01]], 4.0)
    assert not steady.unsteady([[16.0, 16.0, 16.0]], 0.0)
    assert 0 <= steady.scheduler_tick() < 0.1


def test_a_candidate_that_might_be_the_best_counts_and_another_does_not():
    faster, slower = ({"calm": [CALM], "other": [SHARED, [x, 3.6, 3.6]]} for x in (0.9, 1.8))
    assert Outcome(turns=faster).unsteady == (0.9, 3.6)
    assert Outcome(turns=slower).unsteady is None


def test_slices_of_the_scheduler_are_told_in_a_file_too(tmp_path):
    sliced = Outcome(turns={"a": [[0.016, 0.016, 0.016]]}, errors={"a": 0.1}, tick=0.004)
    result = measured()
    result.rows[0].sides["torch"] = sliced
    report.write(result, tmp_path / "b.json")
    assert report.read(tmp_path / "b.json").rows[0].sides["torch"] == sliced
    assert sliced.unsteady == (0.016, 0.016)
    document = json.loads((tmp_path / "b.json").read_text())
    document["rows"][0]["sides"]["torch"]["calls"]["a"] = [2]
    (tmp_path / "b.json").write_text(json.dumps(document))
    with pytest.raises(FileError, match=r"3 times are not those of turns of \[2\] calls"):
        report.read(tmp_path / "b.json")


def test_what_is_wrong_in_one_try_gets_no_time():
    one = Outcome(turns={"a": [CALM], "b": [CALM]}, errors={"a": 0.1, "b": 0.1}, note="n", memory=5)
    both = one.joined(Outcome(turns={"b": [SHARED]}, errors={"a": 2.0, "b": 0.2}))
    assert both == Outcome(turns={"b": [CALM, SHARED]}, errors={"a": 2.0, "b": 0.2}, note="n", memory=5)
    assert both.joined(Outcome(failed="no")).failed == "no"
    assert one.joined(Outcome(turns={"c": [CALM]}, errors={"a": 2.0, "b": 2.0})).failed.startswith("wrong answer")


def test_a_turn_has_calls_enough_for_a_median(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("xpconv.bench.devices.time.perf_counter", lambda: clock[0])

    def calls(took):
        return len(Device().timed(Candidate("a", lambda: clock.append(clock.pop() + took), dict), 0.06).times)

    assert [calls(took) for took in (1e-3, 0.3, 0.7, 5.0)] == [20, FEW, 2, 1]


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch):
    """Sides that take the times of a script: by side and row, milliseconds of each turn in order, the last again and
    again; what happened, in order."""
    scripts, events = {"xpconv": {}, "im2col": {}}, []

    class Process:
        def __init__(self, side, in_force):
            self.side = side

        def close(self):
            events.append(("close", self.side))

        def ask(self, order, *arguments):
            if order == "prepare":
                self.name = arguments[0].layer.name
                return [{"name": "a", "note": "", "answers": []}]
            if order == "turn":
                events.append((self.side, self.name))
                turns = scripts[self.side].get(self.name, [CALM])
                turn = turns.pop(0) if len(turns) > 1 else turns[0]
                if turn is KeyboardInterrupt:
                    raise KeyboardInterrupt
                return [Timed([ms / 1e3 for ms in turn], [])]
            return {"ceiling": {"gflops": 1.0, "gbytes_per_s": 1.0}}.get(order, {})

    made_up = {"Process": Process, "judge": lambda *a: 0.5, "scheduler_tick": lambda: 0.004, "_SETTLE": 0.0}
    for name, value in made_up.items():
        monkeypatch.setattr(run, name, value)
    for name in ("tiny", "quick"):
        monkeypatch.setitem(sets.SETS, name, lambda: list(TINY[:3]))
    settings.use_engine("portable")
    return scripts, events


FIRST, SECOND, THIRD = (layer.name for layer in TINY[:3])


def bench(path, *arguments):
    status = main(
        ["bench", "--against", "im2col", "--direction", "forward", "--rounds", "2", "--json", str(path), *arguments]
    )
    rows = {row["name"]: row["sides"] for row in json.loads(path.read_text())["rows"]}
    return status, rows


@pytest.mark.parametrize("side", ["xpconv", "im2col"])
def test_all_sides_of_an_unsteady_row_are_measured_again_after_all_others(side, script, tmp_path, capsys):
    scripts, events = script
    scripts[side][FIRST] = [SHARED, CALM]
    _, rows = bench(tmp_path / "b.json")
    turns = [event for event in events if event[0] != "close"]
    assert [name for _, name in turns] == 4 * [FIRST] + 4 * [SECOND] + 4 * [THIRD] + 4 * [FIRST]
    assert [turns.count((name, FIRST)) for name in ("xpconv", "im2col")] == [4, 4]
    again = events.index((side, FIRST), 12)
    assert {event for event in events[:again] if event[0] == "close"} == {("close", "xpconv"), ("close", "im2col")}
    for sides in rows.values():
        assert [sides[name].get("tries") for name in sides] == [2 if sides is rows[FIRST] else None] * 2
        assert "unsteady_ms" not in sides["xpconv"] | sides["im2col"]
    assert rows[FIRST][side]["times_ms"]["a"] == SHARED + 3 * CALM  # none is dropped
    assert rows[FIRST][side]["calls"]["a"] == [3, 3, 3, 3]
    assert rows[FIRST][side]["ms"] == 1.05
    shown = capsys.readouterr().out
    assert f"    {side}: unsteady, 1.00 ms at the fastest, 2.00 ms in a turn\n" in shown
    assert "    measured 2 times, all calls count\n" in shown
    assert "  1 row measured again, 0 of them unsteady still\n" in shown


@pytest.mark.parametrize(("options", "tries"), [([], 3), (["--tries", "1"], 1), (["--tries", "2"], 2)])
def test_a_row_that_stays_unsteady_is_marked(options, tries, script, tmp_path, capsys):
    scripts, events = script
    scripts["im2col"][SECOND] = [CALM, SHARED] * 3
    _, rows = bench(tmp_path / "b.json", *options)
    assert rows[SECOND]["im2col"]["unsteady_ms"] == [1.0, 2.0]
    assert "unsteady_ms" not in rows[SECOND]["xpconv"]
    assert rows[SECOND]["im2col"].get("tries", 1) == tries
    assert events.count(("im2col", SECOND)) == 2 * tries
    document = json.loads((tmp_path / "b.json").read_text())
    assert [entry["unsteady"] for entry in document["summary"]] == [1]
    assert document["how"]["steady"] == steady.RULE
    capsys.readouterr()
    assert main(["bench", "--show", str(tmp_path / "b.json"), "--plot", str(tmp_path / "p.png")]) == 0
    shown = capsys.readouterr().out
    assert "    im2col: unsteady, 1.00 ms at the fastest, 2.00 ms in a turn\n" in shown
    assert "of 3, unsteady 1\n" in shown
    assert (f"measured {tries} times" in shown) is (tries > 1)


def test_an_interrupted_try_counts_for_nothing_and_is_gone_on_with(script, tmp_path, capsys):
    scripts, _ = script
    scripts["im2col"][FIRST] = [SHARED, CALM, KeyboardInterrupt]
    status, rows = bench(tmp_path / "b.json")
    assert status == 130
    assert "interrupted: 3 of 3 rows were measured\n" in capsys.readouterr().out
    assert rows[FIRST]["im2col"]["calls"]["a"] == rows[FIRST]["xpconv"]["calls"]["a"] == [3, 3]
    scripts["im2col"][FIRST] = [CALM]
    status, rows = bench(tmp_path / "b.json", "--resume")
    assert status == 0
    assert "3 of them there already" in capsys.readouterr().out
    assert rows[FIRST]["im2col"]["times_ms"]["a"] == SHARED + 3 * CALM
    assert rows[FIRST]["im2col"]["tries"] == 2


def test_calls_of_two_commits_are_not_put_together(script, tmp_path, monkeypatch, capsys):
    scripts, _ = script
    scripts["im2col"][FIRST] = [SHARED, CALM]
    monkeypatch.setattr(facts, "commit", lambda: {"commit": "a1"})
    bench(tmp_path / "b.json", "--tries", "1")
    monkeypatch.setattr(facts, "commit", lambda: {"commit": "b2"})
    _, rows = bench(tmp_path / "b.json", "--resume", "--tries", "1")
    assert rows[FIRST]["im2col"]["times_ms"]["a"] == SHARED + CALM
    _, rows = bench(tmp_path / "b.json", "--resume")
    assert "2 of them there already" in capsys.readouterr().out
    assert rows[FIRST]["im2col"]["times_ms"]["a"] == CALM + CALM


def test_a_reader_of_before_finds_what_it_knows(script, tmp_path):
    """It takes all that it does not know in a row for shapes, and a side's median from ``times_ms``."""
    scripts, _ = script
    scripts["im2col"][FIRST] = [SHARED, CALM]
    bench(tmp_path / "b.json")
    document = json.loads((tmp_path / "b.json").read_text())
    before = report.read(tmp_path / "b.json")
    for entry, row in zip(document["rows"], before.rows, strict=True):
        assert set(entry) - set(report._OF_A_ROW) == set(row.case.layer.parameters)
        for side in entry["sides"].values():
            for name in ("calls", "tick_ms", "tries", "unsteady_ms"):
                side.pop(name, None)
    (tmp_path / "b.json").write_text(json.dumps(document))
    for old, new in zip(report.read(tmp_path / "b.json").rows, before.rows, strict=True):
        assert (old.tries, old.ratio("im2col")) == (1, new.ratio("im2col"))
        assert old.sides["im2col"].times == new.sides["im2col"].times
        assert len(old.sides["im2col"].turns["a"]) == 1


def test_the_help_tells_the_factor(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert f"more than {steady.FACTOR:g} times its fastest call" in capsys.readouterr().out
