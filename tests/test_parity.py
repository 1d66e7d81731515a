"""`xpconv parity` finds what is wrong, goes on after it, and says so; and its measures are neither deaf nor nervous."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import cli, train
from xpconv.cli import parity, parity_table
from xpconv.engines import portable
from xpconv.parity import Target, case_of, check, joined, training
from xpconv.parity.sample import rounded
from xpconv.parity.targets import dtypes, targets

PORTABLE = Target("numpy", "portable")


def run(*arguments: str) -> int:
    return cli.main(["parity", "--backend", "numpy", "--engine", "portable", *arguments])


def test_all_is_well_here(tmp_path, capsys):
    assert run("--op", "relu,max_pool", "--json", str(tmp_path / "p.json")) == 0
    out = capsys.readouterr().out
    assert "parity: all within the bound (" in out
    report = json.loads((tmp_path / "p.json").read_text())
    assert (report["complete"], report["ok"], report["targets"]) == (True, True, ["numpy/portable"])
    pool = next(row for row in report["rows"] if row["op"] == "max_pool")
    assert set(pool["forward"]) == {"float16", "float32", "float64"}
    assert all(0 <= found["error"] <= 1 for found in pool["gradient"].values())
    assert report["training"] == {}


def test_training_is_part_of_a_whole_run_and_each_call_of_its_progress(monkeypatch, capsys):
    totals, told = [], []

    @contextmanager
    def progress(total):
        totals.append(total)
        yield told.append

    monkeypatch.setattr(parity, "CASES", (case_of("relu"),))
    monkeypatch.setattr(parity, "progress", progress)
    assert run() == 0
    assert "50 training steps" in capsys.readouterr().out
    assert totals == [len(told)]
    first, *_, last = told
    assert (first, last) == (
        f"numpy/portable relu: float16, {case_of('relu').samples[0].name}",
        "numpy/portable: training",
    )
    assert f"numpy/portable conv with its norm: float64, {joined.SAMPLES[-1].name}" in told


@pytest.mark.parametrize("name", ["numpy/portable", "numpy/reference", "torch/portable"])
def test_layers_that_are_run_in_one_pass_are_part_of_it(name):
    target = Target(*name.split("/"))
    if missing(target.backend):
        pytest.skip(missing(target.backend))
    row = joined.check(target)
    assert row.ok, row.misses()
    assert (row.calls, row.declined) == (len(joined.SAMPLES) * len(dtypes(target)), 0)


def test_an_engine_that_cannot_join_them_is_no_miss():
    pytest.importorskip("numba")
    row = joined.check(Target("numpy", "numba"))
    assert row.ok
    assert (set(row.forward), row.declined) == ({"float32", "float64"}, len(joined.SAMPLES))


def test_an_engine_that_ignores_the_scale_misses(monkeypatch):
    sound = portable.PRIMITIVES["conv_fprop"]

    def deaf(x, w, *, epilogue, **options):
        return sound.run(x, w, epilogue=epilogue._replace(scale=None), **options)

    monkeypatch.setitem(portable.PRIMITIVES, "conv_fprop", sound._replace(run=deaf))
    row = joined.check(PORTABLE)
    assert [miss.partition(":")[0] for miss in row.misses()] == ["forward float16"]


def test_rounding_between_the_layers_misses(monkeypatch):
    monkeypatch.setattr("xpconv.nn.fusion.HALVES", ())
    row = joined.check(PORTABLE)
    assert [miss.partition(":")[0] for miss in row.misses()] == ["forward float16"]


def spoiled(monkeypatch, run=None, backward=None):
    """`relu` on the portable engine with something done to its results."""
    sound = portable.PRIMITIVES["relu"]

    def running(x, *, needs, **options):
        y, residuals = sound.run(x, needs=needs, **options)
        return (y if run is None else run(x, y)), residuals

    def going_back(residuals, dy, needs):
        grads = sound.backward(residuals, dy, needs)
        return grads if backward is None else backward(dy, grads)

    monkeypatch.setitem(portable.PRIMITIVES, "relu", sound._replace(run=running, backward=going_back))


def written(x):
    x[...] = 3
    return x


calls = iter(range(10**6))
WRONG = {
    "a sum that is a little off": ({"run": lambda x, y: y * np.float32(1 + 1e-5)}, "forward float32: "),
    "a gradient of nan": ({"backward": lambda dy, g: (g[0] * np.nan,)}, "gradient float64: inf"),
    "another dtype": ({"run": lambda x, y: y.astype("float64")}, "y is float64"),
    "another shape": ({"run": lambda x, y: y[None]}, "times the bound"),
    "a missing gradient": ({"backward": lambda dy, g: (None,)}, "dx is missing"),
    "an input written to": ({"run": lambda x, y: (y, written(x))[0]}, "x was written to"),
    "dy written to": ({"backward": lambda dy, g: (g, written(dy))[0]}, "dy was written to"),
    "bits that differ": ({"run": lambda x, y: y + y.dtype.type(next(calls) * 1e-9)}, "from run to run"),
    "an exception": ({"run": lambda x, y: 1 / 0}, "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("what", WRONG)
def test_whatever_is_wrong_is_a_row_and_the_rest_goes_on(what, monkeypatch, capsys, tmp_path):
    spoiling, said = WRONG[what]
    spoiled(monkeypatch, **spoiling)
    assert run("--op", "relu,max_unpool", "--json", str(tmp_path / "p.json")) == 1
    out = capsys.readouterr().out
    assert "numpy/portable relu: " in out
    assert said in out
    assert "parity: 1 of 2 rows miss" in out
    rows = {row["op"]: row for row in json.loads((tmp_path / "p.json").read_text())["rows"]}
    assert (rows["relu"]["ok"], rows["max_unpool"]["ok"]) == (False, True)


def test_where_a_device_is_lost_the_rest_is_not_called_wrong(monkeypatch, capsys, tmp_path):
    spoiled(monkeypatch, run=lambda x, y: 1 / 0)
    monkeypatch.setattr(parity, "to_numpy", lambda x: x.illegal_address)
    assert run("--op", "relu,tanh", "--json", str(tmp_path / "p.json")) == 1
    out = capsys.readouterr().out
    assert "numpy/portable answers no more after relu (AttributeError" in out
    assert "parity: 1 of 1 rows miss" in out
    assert json.loads((tmp_path / "p.json").read_text())["complete"] is False


def test_a_nan_must_show_where_it_was_selected(monkeypatch):
    sound = portable.PRIMITIVES["max_pool"]

    def deaf(x, *, needs, **options):
        return sound.run(np.where(np.isnan(x), x.dtype.type(-9), x), needs=needs, **options)

    monkeypatch.setitem(portable.PRIMITIVES, "max_pool", sound._replace(run=deaf))
    row = check.check(PORTABLE, case_of("max_pool"))
    assert not row.ok
    assert all("nan data" in miss for miss in row.misses())


def test_ctrl_c_keeps_what_was_checked(monkeypatch, capsys, tmp_path):
    def pressed(target, case, on_next):
        if case.name == "relu":
            raise KeyboardInterrupt
        return check.check(target, case, on_next)

    monkeypatch.setattr(parity, "check", pressed)
    assert run("--op", "max_unpool,relu", "--json", str(tmp_path / "p.json")) == 130
    assert "max_unpool" in capsys.readouterr().out
    assert json.loads((tmp_path / "p.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--op", "convolve"], "no op is called 'convolve'"),
        (["--engine", "numbat"], "no engine is called 'numbat'"),
        (["--backend", "abacus"], "no backend is called 'abacus'"),
        (["--backend", "array_api_strict", "--engine", "numba"], "nothing that was asked for can run here"),
        (["--json", "nowhere/p.json"], "there is no folder"),
    ],
)
def test_mistakes_are_told_before_anything_runs(arguments, said, capsys):
    assert cli.main(["parity", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_is_not_here_is_named_with_its_reason(monkeypatch, capsys):
    monkeypatch.setattr(parity, "absent", lambda t: "no wheel fits" if t.backend == "torch" else "")
    monkeypatch.setattr(parity, "BACKENDS", ("numpy", "torch"))
    assert cli.main(["parity", "--engine", "portable", "--op", "relu"]) == 0
    assert "not here  torch/portable: no wheel fits" in capsys.readouterr().out


@pytest.mark.skipif(not missing("cupy"), reason="there is a device here")
def test_without_a_gpu_the_flag_says_what_is_missing(capsys):
    assert cli.main(["parity", "--backend", "cupy"]) == 2
    assert "NVIDIA driver" in capsys.readouterr().err


def test_on_a_terminal_misses_stand_out(monkeypatch):
    monkeypatch.setattr(parity_table, "on_terminal", lambda: True)
    spoiled(monkeypatch, run=lambda x, y: y * 2)
    rows = [check.check(PORTABLE, case_of(name)) for name in ("relu", "tanh")]
    text = parity_table.table(PORTABLE, dtypes(PORTABLE), rows, None)
    relu, tanh = (next(line for line in text.splitlines() if name in line) for name in ("relu", "tanh"))
    assert "\x1b[1;31m" in relu
    assert "\x1b[1;31m" not in tanh


def test_targets_are_every_engine_that_may_serve():
    names = [target.name for target in targets()]
    assert {"numpy/numba", "numpy/reference", "torch/portable", "cupy/cupy", "cupy/portable"} <= set(names)
    assert "torch/reference" not in names, "its loops would be as many small calls"
    assert [t.name for t in targets(("cupy:1",), ("reference", "numba"))] == ["cupy:1/reference"]


def test_bfloat16_is_rounded_to_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.concatenate([np.random.default_rng(0).standard_normal(10**4), [0.0, -0.0, np.nan, 1e-41, 3e38, 1.00390625]])
    wide = x.astype("float32")
    with np.errstate(invalid="ignore"):
        expected = wide.astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(rounded(wide, "bfloat16"), expected)


def test_training_agrees_and_a_slightly_different_one_does_not(monkeypatch):
    assert training.disagreement(PORTABLE) < 1
    plain = train.SGD.change

    def off(self, value, grad, slots, rate, t):
        return plain(self, value, grad, slots, rate * (1 + 3e-5), t)

    exact = training._reference()  # by the true formula
    monkeypatch.setattr(train.SGD, "change", off)
    assert exact is training._reference()
    assert training.disagreement(PORTABLE) > 1


def test_no_setting_leaks(monkeypatch):
    monkeypatch.setattr(parity, "CASES", (case_of("relu"),))
    with xpconv.precision("fast"):
        assert run("--op", "relu") == 0
        assert xpconv.settings.current().precision == "fast"
