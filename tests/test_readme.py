"""The README keeps its word: examples run and print what it says, set-up lines and table are as promised."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import statistics
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
    cpu = json.loads((results / "cpu.json").read_text())
    for name in ("resnet50", "mobilenetv2", "lenet", "samples", "pools", "layers", "steps"):
        for direction, batch in itertools.product(("forward", "backward", "step"), (8, 32)):
            rows = [r for r in cpu["rows"] if (r["set"], r["direction"], r["x"][0]) == (name, direction, batch)]
            ratios = [r["ratio"]["torch"] for r in rows if r["ratio"]["torch"]]
            if ratios:
                below = f"{min(ratios):.2f}, {sum(ratio < 1 for ratio in ratios)} of {len(ratios)}"
                assert f"{statistics.geometric_mean(ratios):.2f} ({below})" in TEXT
    lenet, resnet = (r["ratio"]["torch"] for r in json.loads((results / "cpu_steps.json").read_text())["rows"])
    assert f"a step of LeNet comes to {lenet:.2f}, one of ResNet-20 to {resnet:.2f}" in TEXT
    overhead = json.loads((results / "overhead.json").read_text())
    assert f"adds {overhead['import_adds_ms']} ms" in TEXT
    assert f"{overhead['dispatch_us']['conv']} µs (`conv`)" in TEXT


def test_docstring_examples_hold():
    code = (
        "import doctest, importlib, pkgutil, sys, xpconv\n"
        "failed = 0\n"
        "for m in pkgutil.walk_packages(xpconv.__path__, 'xpconv.'):\n"
        "    if not m.name.endswith('__main__'):\n"
        "        failed += doctest.testmod(importlib.import_module(m.name)).failed\n"
        "sys.exit(bool(failed))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
