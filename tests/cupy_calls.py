"""Calls on CuPy arrays, and beside NumPy's in float64; where there is no CuPy, whoever imports this is skipped."""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv

if missing("cupy"):
    pytest.skip(f"cupy: {missing('cupy')}", allow_module_level=True)
import cupy

EMULATED = cupy.__version__.endswith("emulated")


def on_device(x, device=None):
    return None if x is None else xpconv.backend.get("cupy" if device is None else f"cupy:{device}").asarray(x)


def agrees_with_float64(op, arrays, dtype, **options):
    """Results and gradients of a call beside those of NumPy on the same numbers, to what the dtype can tell."""
    tolerance = {"float16": 2e-3, "float32": 2e-5}[dtype]
    rounded = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arrays]
    ours = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in rounded]
    exact = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in rounded]
    with xpconv.use_engine("cupy"):
        y, pullback = xpconv.vjp(op, *ours, **options)
        dy = on_device(np.random.default_rng(12345).standard_normal(y.shape)).astype(y.dtype)
        grads = pullback(dy)
    true, true_pullback = xpconv.vjp(op, *exact, **options)
    for got, expected in zip((y, *grads), (true, *true_pullback(dy.get().astype(np.float64))), strict=True):
        if expected is not None:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got.get(), expected, rtol=tolerance, atol=tolerance * scale)
