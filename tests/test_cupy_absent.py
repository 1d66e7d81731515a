"""A host without a GPU, or with the wrong CuPy for its driver: what is missing is said, and what installs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from xpconv import backend, driver

CU12, CU13 = "cupy-cuda12x", "cupy-cuda13x"


@pytest.mark.parametrize(
    ("version", "installed", "expected"),
    [
        (0, CU13, "or use 'numpy'"),
        (11080, CU12, "update the driver"),
        (12080, CU13, f"pip uninstall -y {CU13} && pip install 'xpconv[cuda12]'"),
        (13000, CU12, f"pip uninstall -y {CU12} && pip install 'xpconv[cuda13]'"),
        (13000, CU13, "nvidia-smi"),
    ],
)
def test_the_remedy_follows_from_the_driver_and_the_wheel(version, installed, expected, monkeypatch):
    monkeypatch.setattr(driver, "driver_version", lambda: version)
    monkeypatch.setattr(driver, "_is_here", lambda name: name == installed)
    assert expected in driver.no_device()


@pytest.mark.parametrize(("version", "extra"), [(0, "cuda13"), (12040, "cuda12"), (13000, "cuda13")])
def test_a_missing_cupy_names_the_extra_for_the_driver(version, extra, monkeypatch):
    monkeypatch.setattr(driver, "driver_version", lambda: version)
    monkeypatch.setattr(driver, "_is_here", lambda name: False)
    assert f"pip install 'xpconv[{extra}]'" in backend._install("cupy")
    assert ("use 'numpy' here" in backend._install("cupy")) == (version == 0)


def test_bfloat16_names_the_numpy_that_it_takes(monkeypatch):
    backend._cupy_bfloat16.cache_clear()
    monkeypatch.setattr("numpy.__version__", "2.1.1")
    with pytest.raises(TypeError, match=r"from NumPy 2\.1\.2 on.*\n.*NumPy 2\.1\.1\n.*pip install 'numpy>=2\.1\.2'"):
        backend._cupy_bfloat16()
    monkeypatch.setattr("numpy.__version__", "2.2.0")
    assert backend._cupy_bfloat16().itemsize == 2


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """The command line with the real CuPy, if there is one, whatever the tests themselves import."""
    path = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "emulated" not in folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "xpconv", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_line_says_what_is_missing():
    done = run("train", "--backend", "cupy", "--epochs", "1")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    rule, *rest = done.stderr.strip().splitlines()
    assert "CuPy is installed but finds no usable CUDA device" in rule or "needs a package that is not here" in rule
    assert any(word in rest[-1] for word in ("pip install", "nvidia-smi", "driver"))


def test_info_shows_the_engine_and_why_it_is_not_there():
    done = run("info")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["cupy"] and "cannot be had" in line)
    reason = "finds no CUDA device" if importlib.util.find_spec("cupy") else "it needs CuPy"
    assert reason in line or "it needs CuPy" in line
