"""`xpconv info`: what is here, and what it advises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command import xpconv

from xpconv import backend, cores, settings
from xpconv.cli import info, machine


def test_info_tells_of_this_machine():
    done = xpconv("info")
    assert done.returncode == 0
    assert re.search(rf"^  numpy +{re.escape(np.__version__)} +BLAS: ", done.stdout, re.MULTILINE)
    assert re.search(r"^  portable +ready, \d+ primitives$", done.stdout, re.MULTILINE)
    assert "cores usable by this process: " in done.stdout
    assert re.search(r"engine +auto +default +XPCONV_ENGINE", done.stdout)
    gone = {**info.gather()["engines"], "numba": {"problem": "cannot be had here"}}
    chain = info.render({**info.gather(), "engines": gone})
    assert re.search(r"^  numpy +\(numba: not here\), portable$", chain, re.MULTILINE)


def test_info_tells_machines_the_same():
    done = xpconv("info", "--json", env={**os.environ, "XPCONV_ENGINE": "reference,portable"})
    facts = json.loads(done.stdout)
    assert facts["backends"]["numpy"]["version"] == np.__version__
    assert set(facts["engines"]) == set(settings.ENGINES)
    assert facts["settings"]["engine"] == {
        "value": ["reference", "portable"],
        "variable": "XPCONV_ENGINE",
        "from": "environment",
    }
    assert facts["cores"]["usable"] >= 1


def test_info_knows_every_backend_setting_and_extra():
    facts = info.gather()
    assert set(facts["backends"]) == set(backend._KNOWN)
    assert set(facts["settings"]) == set(settings._SETTINGS)
    assert facts["extras"]["train"]["missing"] == []


def test_info_keeps_to_the_terminal(monkeypatch):
    monkeypatch.setattr(info, "terminal_width", lambda: 60)
    lines = info.render({**info.gather(), "advice": ["word " * 30]}).splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith(" " * 20) for line in lines)  # what is wrapped goes on in its column


def test_info_names_what_to_install(monkeypatch):
    version = info._version
    monkeypatch.setattr(info, "_version", lambda *names: version(*names) if "rich" not in names else None)
    text = info.render(info.gather())
    assert re.search(r"^  train +pip install 'xpconv\[train\]' for .* \(missing: rich\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "light"),
    [(["--help"], ("xpconv.train", "matplotlib", "rich", "torch", "PIL")), (["info"], ("torch", "matplotlib", "rich"))],
    ids=["help", "info"],
)
def test_nothing_heavy_is_imported_for(arguments, light):
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('heavy:', [name for name in {light!r} if name in sys.modules]))\n"
        f"from xpconv.cli import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


@pytest.mark.parametrize(
    ("files", "group", "usable"),
    [
        ({"a/cpu.max": "150000 100000"}, "0::/a", 1),
        ({"cpu.max": "100000 100000", "a/cpu.max": "max 100000"}, "0::/a", 1),
        ({"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", 64),
        ({"memory/cpu.cfs_quota_us": "1", "memory/cpu.cfs_period_us": "100000"}, "4:memory:/", 64),
        ({"cpu.max": "6400001 100000"}, "0::/", 64),
    ],
    ids=["quota", "of the group around it", "first hierarchy", "no limit", "another controller", "more than there are"],
)
def test_usable_cores_heeds_the_control_group(tmp_path, monkeypatch, files, group, usable):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(group + "\n")
    found, limit = cores.usable_cores(tmp_path, tmp_path / "cgroup")
    assert found == usable
    assert bool(limit) == (usable < 64)


def test_usable_cores_heeds_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores.usable_cores(tmp_path, tmp_path / "none") == (2, "CPU affinity; 64 in the machine")


AMD, INTEL, WIDE = "vendor_id : AuthenticAMD\n", "vendor_id : GenuineIntel\n", "flags : avx2 avx512f avx512vl\n"


@pytest.mark.parametrize(
    ("name", "kernels", "cpu", "chosen", "advised"),
    [
        ("scipy-openblas", "Haswell", AMD + WIDE, "", True),
        ("scipy-openblas", "", AMD + WIDE, "", True),
        ("scipy-openblas", "SkylakeX", AMD + WIDE, "", False),
        ("scipy-openblas", "Haswell", AMD + WIDE, "Haswell", False),
        ("scipy-openblas", "Zen", AMD + "flags : avx2\n", "", False),
        ("scipy-openblas", "Haswell", INTEL + WIDE, "", False),
        ("mkl", "", AMD + WIDE, "", False),
    ],
)
def test_openblas_advice(tmp_path, monkeypatch, name, kernels, cpu, chosen, advised):
    monkeypatch.setenv("OPENBLAS_CORETYPE", chosen)
    (tmp_path / "cpuinfo").write_text(cpu)
    advice = machine.openblas_advice(machine.Blas(name, "0.3", kernels), tmp_path / "cpuinfo")
    assert (advice is not None) == advised
    assert advice is None or ("OPENBLAS_CORETYPE=SkylakeX" in advice and "measure" in advice)


def test_info_tells_what_is_wrong_with_the_environment_and_goes_on():
    done = xpconv("info", env={**os.environ, "XPCONV_BACKEND": "abacus", "XPCONV_NUM_THREADS": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("XPCONV_BACKEND='abacus': use_backend: no backend is called", "XPCONV_NUM_THREADS='0'"):
        assert said in re.sub(r"\s+", " ", done.stdout.split("\nadvice\n")[1])
