"""The README keeps its word: examples run and print what it says, set-up lines and table are as promised."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpconv

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text() if README.exists() else ""
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[0])
def test_examples_run_and_print_what_they_say(code, tmp_path, monkeypatch):
    for library in re.findall(r"^import (torch)$", code, re.MULTILINE):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    promised = re.findall(r"^print\(.*\) +# (.*)$", code, re.MULTILINE)
    for said, line in zip(promised, printed.getvalue().splitlines(), strict=True):
        assert line.startswith(said.removesuffix("..."))


def test_there_are_exactly_two_set_up_lines():
    for heading in ("Run it", "Test it"):
        section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        blocks = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        assert len(blocks) == 1
        assert len(blocks[0].strip().splitlines()) == 1
        assert blocks[0].startswith("python3 -m venv ")


def test_the_table_has_every_op():
    section = TEXT.split("\n## Ops and backends\n")[1].split("\n## ")[0]
    named = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `")))
    )
    assert named == set(xpconv.ops.__all__)


def test_figures_are_those_of_the_result_files():
    results = README.parent / "bench" / "results"
    conv = json.loads((results / "portable_conv.json").read_text())
    columns = ("portable_gflops", "torch_gflops", "speed_over_torch", "speed_over_reference")
    for row in conv["rows"]:
        shown = f"| {row['size']} × {row['size']}, {row['in']} → {row['out']} |"
        assert f"{shown} {' | '.join(str(row[name]) for name in columns)} |" in TEXT
    fashion = json.loads((results / "fashion_mnist.json").read_text())
    assert f"comes to {100 * fashion['learned']['test_accuracy']:.1f} % of the test images" in TEXT
    ours, theirs = fashion["time"]["xpconv"], fashion["time"]["torch, channels last"]
    steps = f"take {ours['epoch_s']} s on two cores where PyTorch's take {theirs['epoch_s']} s"
    assert steps in " ".join(TEXT.split())
    overhead = json.loads((results / "overhead.json").read_text())
    assert f"adds {overhead['import_adds_ms']} ms" in TEXT
    assert f"{overhead['dispatch_us']['conv']} µs (`conv`)" in TEXT


def test_tables_of_speed_are_those_made_from_the_result_files(tables):
    for line in (*tables.cpu_table(), *tables.networks_table(), *tables.peers_table()):
        assert line in TEXT.splitlines()
    if any((README.parent / "bench" / "results").glob("gpu-*.json")):
        for line in tables.gpu_table():
            assert line in TEXT.splitlines()


@pytest.fixture
def tables():
    """`bench/readme.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("readme_tables", README.parent / "bench" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gpu_table_says_what_was_measured_and_what_was_not(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = [{"direction": "forward", "ratio": {"torch": ratio}} for ratio in (2.0, 0.5, None)]
    (tmp_path / "gpu-resnet50-64-bfloat16-ieee.json").write_text(json.dumps({"rows": rows}))
    lines = list(tables.gpu_table())
    assert "| ResNet-50, batch 64, bfloat16 | 1.00 (0.50, 1 of 2) | not measured | not measured |" in lines
    assert "| ResNet-50, batch 64, float16 | not measured | not measured | not measured |" in lines
    assert "| LeNet 28² | not measured | not measured |" in lines
    assert "| ReLU 64 | not measured | not measured | not measured |" in lines
    sides = {"xpconv": {"host_us": 8.04}, "launch": {"host_us": 3.3}}
    overhead = {"rows": [{"name": "ReLU 64", "direction": "forward", "sides": sides}]}
    (tmp_path / "gpu-overhead.json").write_text(json.dumps(overhead))
    assert "| ReLU 64 | 8.0 | | 3.3 |" in list(tables.gpu_table())


def test_the_table_of_networks_tells_replays_and_calls(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    times = {"numpy": [2.0, 4.0, 9.0], "numpy, replay": [2.0]}
    sides = {"xpconv": {"ms": 2.0, "times_ms": times}, "torch": {"ms": 6.0}}
    for file, op in (("cpu_inference.json", "inference"), ("cpu_steps.json", "step")):
        row = {"name": "LeNet 28²", "op": op, "x": [8, 28, 28, 1], "sides": sides}
        (tmp_path / file).write_text(json.dumps({"rows": [row]}))
    assert "| LeNet, 28² | | 3.00 (1.50) | | 3.00 (1.50) | | |" in list(tables.networks_table())


def test_an_emulated_gpu_is_no_result(tables, tmp_path, monkeypatch):
    for path in tables.RESULTS.glob("*.json"):
        assert "emulated" not in json.loads(path.read_text()), path.name
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "gpu-steps.json").write_text('{"emulated": true, "rows": []}')
    with pytest.raises(ValueError, match="measures nothing"):
        list(tables.gpu_table())


def test_docstring_examples_hold():
    code = (
        "import doctest, importlib, pkgutil, sys, xpconv\n"
        "failed = 0\n"
        "for m in pkgutil.walk_packages(xpconv.__path__, 'xpconv.'):\n"
        "    if m.name.endswith('__main__'):\n"
        "        continue\n"
        "    try:\n"
        "        module = importlib.import_module(m.name)\n"
        "    except ImportError:\n"
        "        if not m.name.startswith(('xpconv.engines.', 'xpconv.bench.devices.')):\n"  # a library may not be here
        "            raise\n"
        "    else:\n"
        "        failed += doctest.testmod(module).failed\n"
        "sys.exit(bool(failed))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
