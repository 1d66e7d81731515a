"""Tiny rows for the tests of `xpconv bench`, runs of them, and what one of some came to."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xpconv import settings
from xpconv.bench import run, sets, steady
from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.result import Outcome, Plan, Result, Row
from xpconv.cli import main

ROOT = Path(__file__).parent.parent
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
    Layer("tiny", "ResNet-20's answer", "inference", (8, 8, 3), options={"model": "resnet20"}, batch=3),
    Layer("tiny", "U-Net's answer", "inference", (8, 16, 3), options={"model": "unet"}, batch=2),
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
CASES = [Case(x, x.batch, d) for x in TINY for d in sets.OF_OP.get(x.op, ("forward", "backward"))]


def outcome(seconds, error=0.1, **facts):
    return Outcome(turns={"a": [list(seconds)]}, errors={"a": error}, **facts)


def measured():
    """Two rows measured and one that failed, beside one peer."""
    cases = [Case(layer, 2, "forward") for layer in TINY[:3]]
    ceiling = {"gflops": 100.0, "gbytes_per_s": 10.0, "how": "so"}
    made = Result(Plan(cases, ["torch"]), ceiling, {"versions": {"torch": "2"}, "rounds": 2, "dtype": "float32"})
    for case, theirs in zip(cases, ((0.004, 0.008, 0.006), (0.001,), None), strict=True):
        peer = Outcome(failed="RuntimeError: no") if theirs is None else outcome(theirs)
        made.rows.append(Row(case, {"xpconv": outcome((0.002, 0.002, 0.5)), "torch": peer}))
    return made


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """For whoever imports it: one short turn, on an engine that needs no compiling."""
    monkeypatch.setattr(run, "_TURN", 0.0)
    monkeypatch.setattr(run, "_SETTLE", 0.0)
    monkeypatch.setattr(steady, "FACTOR", math.inf)  # nothing is measured again: how fast this machine is, is no matter
    settings.use_engine("portable")


def bench(*arguments):
    """The command with two rounds of turns, in this process."""
    return main(["bench", "--rounds", "2", *map(str, arguments)])


def emulated(*command):
    """Run Python where `import cupy` gives the emulated one."""
    if shutil.which("g++") is None:
        pytest.skip("the emulated CuPy compiles kernels with g++, which is not here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "emulated"), str(ROOT)])}
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240)
