"""Shared by all tests: the strictest flags of array-api-strict, Ctrl-C, and settings that do not leak."""

from __future__ import annotations

import signal

import array_api_strict
import cudnn_on_host
import numpy as np
import pytest
from benches import TINY
from command import xpconv
from nets import BACKENDS, assorted, corners, images
from targets import missing

from xpconv import settings
from xpconv.bench import sets

cudnn_on_host.install_if_emulated()  # before tests are collected: which calls there are depends on what an engine takes


@pytest.fixture(autouse=True, scope="session")
def _strictest_flags():
    array_api_strict.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_has_its_usual_meaning():
    """Also where the tests were started in the background, which ignores it; child processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _settings_do_not_leak():
    with settings.applied(settings.current()):
        yield


@pytest.fixture
def learned():
    """A network with every kind of state, whose running statistics have moved."""
    net = assorted().initialize(seed=2)
    net.vjp(images())
    return net


@pytest.fixture
def path(tmp_path):
    """Where a network may be saved."""
    return tmp_path / "net.safetensors"


@pytest.fixture
def numba_alone():
    """Whatever is computed is computed by the compiled engine, or refused."""
    with settings.use_engine("numba"):
        yield


@pytest.fixture
def forgetful():
    """Choices made under a patch are not remembered beyond it."""
    from numba_conv import forget

    yield
    forget()


@pytest.fixture
def tiny(monkeypatch):
    """A set of tiny rows of `xpconv bench`, which is the default."""
    for name in ("tiny", "quick"):
        monkeypatch.setitem(sets.SETS, name, lambda: list(TINY[:2]))


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> str:
    """Each backend that is here, by name."""
    reason = missing(request.param)
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    images, labels = corners()
    path = tmp_path_factory.mktemp("data") / "corners.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A folder that `xpconv train` wrote, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "deep" / "er"
    done = xpconv("train", "--data", data, "--epochs", "4", "--batch-size", "16", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout
