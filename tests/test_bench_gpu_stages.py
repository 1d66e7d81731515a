"""The stages of the script for a GPU: what fits a call, what goes on in the next one, what is asked to end."""

from __future__ import annotations

import importlib
import json
import os
import sys

import pytest
from benches import ROOT, emulated

from xpconv.parity import CASES, Target, joined


def test_the_stages_run_dry(tmp_path):
    """Each has its log, one that fails stops none, and a second call does what is left."""
    script = ROOT / "bench" / "gpu.py"
    done = emulated(script, tmp_path / "out", "--dry-run", "--stages", "info,device,overhead")
    ended = json.loads((tmp_path / "out" / "stages.json").read_text())
    assert {name: stage["status"] for name, stage in ended.items()} == {
        "info": "done",
        "device": "left out: an emulated GPU has no properties",
        "overhead": "done",
    }, done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "gpu-overhead.json").read_text())["emulated"] is True
    assert "emulated: no measurement" in done.stdout
    assert "not begun" in done.stdout
    assert (tmp_path / "out" / "results.tar.gz").stat().st_size > 0


@pytest.fixture
def scripts(monkeypatch):
    """The modules of `bench/`, by name."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module


def test_what_is_planned_for_the_first_calls_fits_them(scripts, tmp_path):
    """Nine minutes and three, with what starting and packing take on top."""
    found = scripts("gpu_stages")
    every = found.stages(tmp_path, dry_run=False)
    assert [stage.call for stage in every] == sorted(stage.call for stage in every)
    for call, minutes in enumerate(found.MINUTES, 1):
        planned = sum(stage.limit for stage in every if stage.call == call)
        assert 0.9 * 60 * minutes < planned <= 60 * minutes
    assert found.MINUTES[0] <= 9.5
    assert sum(found.MINUTES) <= 13
    first = [stage.name for stage in every if stage.call == 1]
    assert {"parity", "device", "steps", "bandwidth", "layouts", "capture"} <= set(first)
    assert first.index("parity") < first.index("convs-bfloat16-ieee") < first.index("layouts")
    assert len({stage.name for stage in every}) == len(every)


def test_a_call_begins_what_has_not_ended_by_itself_and_still_fits(scripts, tmp_path, monkeypatch):
    gpu, found = scripts("gpu"), scripts("gpu_stages")
    limits = {"done": 9, "failed": 9, "stopped": 9, "long": 900, "kept": 900, "short": 9}
    every = [found.Stage(name, (), limit, resumes=name == "kept") for name, limit in limits.items()]
    before = {"done": "done", "failed": "exit status 1", "stopped": "stopped at its limit"}
    before = {name: {"status": status, "seconds": 1.0} for name, status in before.items()}
    (tmp_path / "stages.json").write_text(json.dumps(before))
    begun = []
    monkeypatch.setattr(gpu, "stages", lambda out, dry_run: every)
    monkeypatch.setattr(gpu, "run", lambda stage, *_: begun.append(stage.name) or {"status": "done", "seconds": 0.0})
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path), "--minutes", "1"])
    assert gpu.main() == 1
    assert begun == ["kept", "short", "stopped"]  # which begins anew
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "on"), "--from", str(tmp_path / "results.tar.gz")])
    assert gpu.main() == 1
    assert begun[3:] == ["long"]


def test_rows_go_on_in_what_stages_before_have_left(scripts, tmp_path, monkeypatch):
    gpu, found = scripts("gpu"), scripts("gpu_stages")
    every = [found.Stage(name, (), 100, resumes="rows" in name) for name in ("quick", "rows", "slow", "more rows")]
    took, limits = {"quick": 20.0, "rows": 150.0, "slow": 100.0, "more rows": 10.0}, {}

    def run(stage, out, limit, env):
        limits[stage.name] = limit
        return {"status": "done", "seconds": took[stage.name]}

    monkeypatch.setattr(gpu, "stages", lambda out, dry_run: every)
    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path), "--minutes", "9"])
    assert gpu.main() == 0
    assert limits == {"quick": 100, "rows": 180, "slow": 100, "more rows": 130}


def test_a_stage_at_its_limit_is_asked_to_end_and_then_made_to(scripts, tmp_path, monkeypatch):
    gpu, found = scripts("gpu"), scripts("gpu_stages")
    monkeypatch.setattr(gpu, "GRACE", 1)
    ends = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('kept')"
    deaf = "import time, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\ntime.sleep(60)"
    for name, code, last in (("ends", ends, "kept"), ("deaf", deaf, "on")):
        stage = found.Stage(name, (sys.executable, "-c", code), 2)
        ended = gpu.run(stage, tmp_path, 2, dict(os.environ))
        assert ended["status"] == "stopped at its limit"
        assert ended["seconds"] < 10
        assert gpu.told(tmp_path, stage, ended) == last
        assert last in gpu.table([stage], {name: ended}, tmp_path)


def test_parity_is_shared_out_and_comes_together(tmp_path):
    """Two workers on the emulated CuPy find what one process finds."""
    ops = ("--op", "relu,add")
    shared, alone = tmp_path / "shared.json", tmp_path / "alone.json"
    done = emulated(ROOT / "bench" / "gpu_parity.py", shared, "--workers", 2, *ops)
    assert done.returncode == 0, done.stdout + done.stderr
    assert emulated("-m", "xpconv", "parity", "--backend", "cupy", *ops, "--json", alone).returncode == 0

    def rows(path):
        return sorted(json.loads(path.read_text())["rows"], key=lambda row: (row["target"], row["op"]))

    assert rows(shared) == rows(alone)
    assert json.loads(shared.read_text())["complete"]


def test_all_that_parity_checks_is_shared_out(scripts):
    parity, target = scripts("gpu_parity"), Target("numpy", "portable")
    tasks = list(parity.tasks([target], None))
    assert {task.op for task in tasks} == {"", joined.NAME, *(case.name for case in CASES)}
    (row,) = parity.joined([task.done() for task in tasks if task.op == joined.NAME])
    assert row.as_dict() == joined.check(target).as_dict()


def test_a_worker_that_dies_is_a_miss_and_another_goes_on(scripts, tmp_path, monkeypatch):
    parity = scripts("gpu_parity")
    target, answers = parity.Target("cupy", "cupy"), []

    class Worker:
        def __init__(self):
            answers.append(0)

        def ask(self, task):
            answers[-1] += 1
            if task.first == 2:
                return task.failed("its process died (exit status -11)"), False
            return parity.Row(target, task.op, calls=3), True

        def close(self):
            pass

    monkeypatch.setattr(parity, "Worker", Worker)
    found = parity.Found(tmp_path / "p.json", [target], {})
    monkeypatch.setattr(found, "write", lambda complete: None)
    parity.work(iter([parity.Task(target, "relu", first) for first in (0, 2, 4)]), found, parity.threading.Lock())
    (row,) = parity.joined(found.rows)
    assert (row.calls, row.faults, answers) == (6, ["its process died (exit status -11)"], [2, 1])
