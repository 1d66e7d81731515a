"""What tests of the cuDNN engine on the emulated CuPy share: its modules, arrays of theirs, answers beside the truth.

Run with `PYTHONPATH=tests/emulated`, where nvidia-cudnn-frontend is installed; elsewhere such tests are reported as
skipped.
"""

from __future__ import annotations

import cudnn_interpreter
import cudnn_on_host
import numpy as np
import pytest

import xpconv
from xpconv import ops
from xpconv.dispatch import registered
from xpconv.parity import case_of
from xpconv.parity.bounds import Truth, error_in_bounds
from xpconv.window import conv_window

engine = cudnn_on_host.required()
conv, layouts, library, plans, tune = engine.conv, engine.layouts, engine.library, engine.plans, engine.tune
cupy = library.cupy

_rng = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def strict_chain():
    """What the engine does not do by itself here fails; numbers do not depend on which tests ran before."""
    global _rng
    _rng = np.random.default_rng(11)
    with xpconv.use_engine("cudnn", "portable"):
        cudnn_interpreter.launches.clear()
        yield


def made(*shape, dtype="float32"):
    return cupy.asarray(_rng.standard_normal(shape).astype(dtype))


def fprop_options(x, w):
    """What dispatch passes on for a plain convolution."""
    return registered(ops.conv).bind(x, w).parts()[0][2]


def wgrad_options():
    return {"window": conv_window("conv", (8, 8), (3, 3), 1, 1), "groups": 1, "w_shape": (3, 3, 16, 16)}


def wgrad(x):
    return conv.PRIMITIVES["conv_wgrad"].run(x, x, **wgrad_options())


def close(got, x, w, b=None, residual=None, *, op=ops.conv, dy=None, grads=(), **options):
    """Hold a result, and its gradients where they are given, to the bounds of the op."""
    given = {"x": x, "w": w, "b": b, "residual": residual}
    arrays = {name: None if a is None else a.get().astype("float64") for name, a in given.items()}
    with xpconv.use_engine("portable"):
        y, pullback = xpconv.vjp(op, **arrays, **options)
        host_dy = np.ones_like(y) if dy is None else dy.get().astype("float64")
        true = Truth(op, arrays, options, x.dtype.name, y, host_dy, pullback(host_dy))
        scales = case_of(op.__name__).scales(true)
    for one, wanted, scale in [(got, y, scales.y), *zip(grads, true.grads, scales.grads, strict=False)]:
        assert (one is None) == (wanted is None)
        if one is not None:
            assert error_in_bounds(one.get().astype("float64"), wanted, scale, true.dtype) <= 1


def clear():
    """Forget plans and choices, but for what is on disk."""
    for cached in (plans.find, tune.path, tune._choices):
        cached.cache_clear()


@pytest.fixture
def own_choices(monkeypatch, tmp_path):
    """A folder for choices of plans; compiled kernels stay where they are."""
    monkeypatch.setattr(tune, "cache_folder", lambda: tmp_path)
    clear()
    yield tmp_path
    clear()
