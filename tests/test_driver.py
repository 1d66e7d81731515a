"""What to do for a GPU is told exactly: which driver was found, which CuPy goes with it, and what is in the way."""

from __future__ import annotations

import pytest

import xpconv
from xpconv import backend, driver
from xpconv.cli import info


@pytest.fixture
def machine(monkeypatch):
    """A machine with a driver of some version, and some distributions of CuPy."""

    def make(version: int, *installed: str, hidden: str | None = None) -> None:
        monkeypatch.setattr(driver, "driver_version", lambda: version)
        monkeypatch.setattr(driver, "_is_here", lambda name: name in installed)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if hidden is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)

    return make


@pytest.mark.parametrize(
    ("version", "installed", "line"),
    [
        (0, (), "pip install 'xpconv[cuda13]'"),
        (12040, (), "pip install 'xpconv[cuda12]'"),
        (13000, ("cupy-cuda13x",), "pip install 'xpconv[cuda13]'"),
        (12080, ("cupy-cuda13x",), "pip uninstall -y cupy-cuda13x && pip install 'xpconv[cuda12]'"),
        (13010, ("cupy-cuda12x", "cupy"), "pip uninstall -y cupy-cuda12x cupy && pip install 'xpconv[cuda13]'"),
    ],
)
def test_the_line_fits_the_driver(machine, version, installed, line):
    machine(version, *installed)
    assert driver.install_cupy() == line


@pytest.mark.parametrize(
    ("version", "installed", "hidden", "said"),
    [
        (0, ("cupy-cuda13x",), None, "install the NVIDIA driver"),
        (11080, ("cupy-cuda12x",), None, "serves CUDA 11.8: update the driver"),
        (12080, ("cupy-cuda13x",), None, "is for another CUDA than the driver's: pip uninstall -y cupy-cuda13x"),
        (13000, ("cupy-cuda13x",), "", "CUDA_VISIBLE_DEVICES= says which GPUs"),
        (13000, ("cupy-cuda13x",), None, "check nvidia-smi"),
    ],
)
def test_what_is_in_the_way_is_named(machine, version, installed, hidden, said):
    machine(version, *installed, hidden=hidden)
    assert said in driver.no_device()


def test_a_backend_that_is_not_installed_says_the_line(machine, monkeypatch):
    machine(12040)

    def missing(place):
        raise ImportError("No module named 'cupy'")

    monkeypatch.setitem(backend._MAKERS, "cupy", missing)
    backend.get.cache_clear()
    with pytest.raises(xpconv.BackendError) as caught:
        xpconv.use_backend("cupy")
    backend.get.cache_clear()
    assert "pip install 'xpconv[cuda12]'  (NVIDIA driver found, CUDA 12.4)" in str(caught.value)


def test_info_advises_a_machine_with_a_driver_and_no_cupy(machine, monkeypatch):
    machine(13000)
    monkeypatch.setattr(info, "driver_version", driver.driver_version)
    version = info._version
    monkeypatch.setattr(info, "_version", lambda *names: None if "cupy" in names else version(*names))
    assert (
        info._gpu_advice() == "NVIDIA driver found, CUDA 13.0, and CuPy is not installed: pip install 'xpconv[cuda13]'"
    )
