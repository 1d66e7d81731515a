"""The way of a benchmark on a GPU, gone on the emulated CuPy: what it times there is no measurement, and says so."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xpconv import settings
from xpconv.bench import shapes, sides, truth
from xpconv.bench.candidate import Candidate
from xpconv.bench.case import Case, rounded
from xpconv.bench.devices.cuda import Cuda
from xpconv.bench.layer import Layer
from xpconv.errors import EngineError
from xpconv.parity import CASES, Target, joined

ROOT = Path(__file__).parent.parent
CONV = Layer("tiny", "conv", "conv", (5, 5, 3), {"w": (3, 3, 3, 4)}, {"padding": 1}, batch=2)


def emulated(*command):
    """Run Python where `import cupy` gives the emulated one."""
    if shutil.which("g++") is None:
        pytest.skip("the emulated CuPy compiles kernels with g++, which is not here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "emulated"), str(ROOT)])}
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240)


def bench(path, *options):
    done = emulated("-m", "xpconv", "bench", "--backend", "cupy", "--rounds", 1, "--tries", 1, "--json", path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


def test_rows_go_all_the_way_and_are_marked(tmp_path):
    peers = ("--against", "launch,engine:portable")
    chosen = ("--set", "overhead", "--only", "ReLU", "--emulated")
    found, shown = bench(tmp_path / "b.json", *peers, *chosen)
    assert found["emulated"] is True
    assert found["gpu"] == "emulated on the CPU"
    assert "events" in found["how"]["time"]
    forward, backward = found["rows"]
    assert (forward["direction"], backward["direction"]) == ("forward", "backward")
    assert all(side["host_us"] > 0 and side["error"] <= 1 for side in forward["sides"].values())
    assert backward["sides"]["launch"] == {"not_offered": "ReLU forward in float32 only"}
    assert forward["sides"]["xpconv"]["engine"] != forward["sides"]["engine:portable"]["engine"] == "portable"
    assert shown.count("host µs") == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_and_fused_layers_are_judged(dtype, tmp_path):
    options = ("--set", "overhead", "--only", "8→8 3×3", "--dtype", dtype, "--against", "none", "--emulated")
    found, _ = bench(tmp_path / "b.json", *options)
    assert [row["direction"] for row in found["rows"]] == ["forward", "fused", "backward"]
    assert found["dtype"] == dtype
    assert all(0 < row["sides"]["xpconv"]["error"] <= 1 for row in found["rows"])
    assert found["rows"][0]["bytes"] == 2 * (2 * 4 * 4 * 8 + 3 * 3 * 8 * 8)


def test_a_recorded_step_is_timed_beside_the_usual_one(tmp_path):
    options = ("--set", "steps", "--only", "lenet", "--batch", 2, "--against", "none", "--emulated", "--memory")
    found, _ = bench(tmp_path / "b.json", *options)
    ours = found["rows"][0]["sides"]["xpconv"]
    assert list(ours["times_ms"]) == ["cupy", "cupy, CUDA graph"]
    assert all(error <= 1 for error in ours["errors"].values())
    assert ours["engine"].startswith("CUDA graph: a step of 2 images is recorded")
    assert "memory_bytes" in ours


def test_recorded_inference_is_timed_beside_the_usual_one(tmp_path):
    options = ("--set", "inference", "--only", "lenet", "--batch", 2, "--against", "none", "--emulated")
    ours = bench(tmp_path / "b.json", *options)[0]["rows"][0]["sides"]["xpconv"]
    assert list(ours["times_ms"]) == ["cupy", "cupy, CUDA graph"]
    assert ours["engine"] == "CUDA graph: inference of 2 images is recorded and replayed"


def test_a_step_that_is_no_function_is_timed_by_cupys_profiler():
    told = "import sys; sys.path.insert(0, sys.argv[1]); import functools, gpu_profile as g; g.by_cupyx({})"
    done = emulated("-c", told.format("functools.partial(int)"), ROOT / "bench")
    assert done.returncode == 0, done.stderr


def test_an_emulated_gpu_is_refused_unless_it_is_asked_for(tmp_path):
    done = emulated("-m", "xpconv", "bench", "--backend", "cupy", "--against", "none", "--json", tmp_path / "b.json")
    assert done.returncode == 2
    assert "its times mean nothing" in done.stderr
    assert not (tmp_path / "b.json").exists()


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


# -- pieces ----------------------------------------------------------------------------------------------------------


class Counting(Cuda):
    """A device whose calls take 1 ms, and the handing of them 0.1 ms."""

    now = 0.0

    def record(self):
        return self.now

    def elapsed(self, first, last):
        return last - first

    def synchronize(self):
        pass


def test_calls_are_timed_in_batches_between_events(monkeypatch):
    device, calls = Counting(), []

    def call():
        calls.append(device.now)
        device.now += 1e-3

    monkeypatch.setattr(time, "perf_counter", lambda: device.now / 10)
    found = device.timed(Candidate("a", call, dict), 0.02)
    assert found.times == pytest.approx([1e-3] * 5)
    assert found.host == pytest.approx([1e-4] * 5)
    assert len(calls) == 1 + 3 + 5 * 4  # one to wake the device, three for an estimate, then 4 ms a batch


def test_an_engine_is_a_peer():
    module, applied = sides.of("engine:portable+reference", settings.current())
    assert module == sides.SIDES["xpconv"].module
    assert applied.engine == ("portable", "reference")
    sides.check(["engine:portable"])
    with pytest.raises((ValueError, EngineError), match="no engine is called 'abacus'"):
        sides.check(["engine:abacus"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_arrays_hold_what_the_dtype_has(dtype):
    arrays = Case(CONV, 2, "fused", dtype).arrays()
    assert list(arrays) == ["x", "w", "b", "dy"]
    bits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 24}[dtype]
    for x in arrays.values():
        mantissa, _ = np.frexp(x.astype("float64"))
        assert np.array_equal(mantissa * 2**bits, np.round(mantissa * 2**bits))
        assert x.dtype == ("float64" if dtype == "float64" else "float32")


def test_bfloat16_is_rounded_to_even():
    ties = np.float32([1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8])
    assert np.array_equal(rounded(ties, "bfloat16"), np.float32([1, 1, 1 + 2**-6]))


def test_large_arrays_repeat_without_two_equal_rows():
    x = Case(Layer("tiny", "big", "relu", (300, 300, 60)), 1, "forward").arrays()["x"]
    flat = x.reshape(-1, 60)
    assert len(np.unique(flat[:, :2], axis=0)) == len(flat)


def test_fused_layers_are_wanted_where_they_are_asked_for():
    assert {case.direction for case in shapes.chosen(["lenet"])} == {"forward", "backward"}
    fused = shapes.chosen(["lenet", "pools"], directions=["fused"], dtype="bfloat16")
    assert len(fused) == 3
    assert all(case.options["activation"] == "relu" and case.dtype == "bfloat16" for case in fused)
    with pytest.raises(ValueError, match="no dtype is called 'int8'"):
        shapes.chosen(["lenet"], dtype="int8")


def test_losses_that_were_found_beforehand_are_those_of_the_steps():
    """Where images or weights are drawn otherwise than then, they are not found, and bench/losses.py must be run."""
    known = truth._known_losses()
    dtypes = ("bfloat16", "float32", "float16")
    for set_name, dtype in (("steps", "float32"), *(("large_steps", name) for name in dtypes)):
        for case in shapes.chosen([set_name], dtype=dtype):
            arrays = case.arrays()
            found = known[truth.digest(case, arrays)]
            assert (found["case"], found["dtype"]) == (case.name, dtype)
            if "LeNet" in case.name:
                with settings.use_engine("portable"):
                    np.testing.assert_allclose(truth.losses(case, arrays), found["losses"], rtol=1e-9)
                assert truth.digest(case, {**arrays, "x": arrays["x"] + 1}) not in known


def test_the_networks_whose_steps_are_timed_have_one_set_of_names():
    """PyTorch's modules take xpconv's values by name; every one is taken."""
    pytest.importorskip("torch")
    from xpconv.bench.networks import network
    from xpconv.bench.sides.torch_networks import network as torch_network

    for model in ("lenet", "resnet20", "resnet50"):
        x = np.zeros((1, 32, 32, 3), "float32")
        theirs = {n for n in torch_network(model, x).state_dict() if not n.endswith("num_batches_tracked")}
        assert theirs == set(network(model, x).state_dict())


def test_pytorchs_graph_begins_at_the_first_weights(monkeypatch):
    """The capture's own steps leave no trace; PyTorch's CUDA names are replaced by what runs on the host."""
    torch = pytest.importorskip("torch")
    from contextlib import nullcontext

    from xpconv.bench.sides import torch_graph, torch_step

    class Stream:
        def wait_stream(self, other):
            pass

    replaced = {"Stream": Stream, "current_stream": Stream, "CUDAGraph": object}
    for name, value in {**replaced, "stream": nullcontext, "graph": nullcontext}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    case = Case(Layer("tiny", "ResNet", "step", (8, 8, 3), options={"model": "resnet20"}), 4, "step")
    arrays = case.arrays()
    step, fresh = (torch_step.step_of(case, arrays, 4, torch.contiguous_format) for _ in range(2))
    torch_graph._captured(step)
    for name, tensor in fresh.net.state_dict().items():
        assert torch.equal(step.net.state_dict()[name], tensor), name
    assert [float(step()) for _ in range(2)] == [float(fresh()) for _ in range(2)]
