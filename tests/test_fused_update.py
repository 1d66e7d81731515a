"""One launch that updates all parameters computes what the formulas of `train.optim` do, to the bit.

Run with `PYTHONPATH=tests/emulated` or on a GPU; elsewhere these are reported as skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn, train

if missing("cupy"):
    pytest.skip(f"cupy: {missing('cupy')}", allow_module_level=True)
import cupy

MAKERS = {
    "sgd": lambda: train.SGD(0.1),
    "sgd, momentum": lambda: train.SGD(0.1, momentum=0.9),
    "sgd, nesterov, decay": lambda: train.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    "adam": lambda: train.Adam(0.01),
    "adam, decay": lambda: train.Adam(0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2),
    "adamw": lambda: train.AdamW(0.03, betas=(0.7, 0.9), weight_decay=0.5),
    "adamw, clipped": lambda: train.AdamW(0.03, clip_norm=2.0),
    "sgd, clipped": lambda: train.SGD(0.1, momentum=0.9, weight_decay=0.1, clip_norm=2.0),
}
# More parameters than a launch takes, more elements than a block takes, one of none, one of a few.
SHAPES = [(5000,), (0, 3), (), *[(i + 1, 3) for i in range(70)], (2048,), (2049,)]


def parameters(dtype: str) -> dict[str, nn.Parameter]:
    rng = np.random.default_rng(0)
    return {str(i): nn.Parameter(made(rng.standard_normal(shape), dtype)) for i, shape in enumerate(SHAPES)}


def made(x: np.ndarray, dtype: str):
    return xpconv.backend.get("cupy").asarray(np.asarray(x, "float32"), dtype)


def advance(optimizer: train.Optimizer, params: dict[str, nn.Parameter], steps: range, dtype: str) -> None:
    for step in steps:
        rng = np.random.default_rng(step)
        for i, parameter in enumerate(params.values()):
            grad = made(rng.standard_normal(SHAPES[i]), dtype)
            parameter.grad = None if (i + step) % 7 == 0 and step else grad  # some begin later than others
            if grad.ndim == 2 and i % 2:
                parameter.grad = cupy.asarray(grad, order="F")
        optimizer.step(params)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_launch_computes_what_the_formula_says(name, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    found = []
    for engine in ("cupy", "portable"):
        optimizer, params = MAKERS[name](), parameters(dtype)
        with xpconv.use_engine(engine):
            assert (optimizer.fused(params) is not None) == (engine == "cupy")
            advance(optimizer, params, range(4), dtype)
        found.append((params, optimizer.state_dict()))
    (fused, kept), (plain, expected) = found
    # The double-precision powers of a host and a device may differ in their last bit; rounding to float32 hides it.
    close = {"rtol": 1e-14, "atol": 1e-14} if dtype == "float64" else {"rtol": 0, "atol": 0}
    for key, parameter in plain.items():
        np.testing.assert_allclose(xpconv.to_numpy(fused[key].value), xpconv.to_numpy(parameter.value), **close)
        assert fused[key].version == parameter.version
    for key, value in expected.items():
        np.testing.assert_allclose(kept[key], value, **close)


def test_a_rate_and_a_count_on_the_device_are_read_there():
    found = []
    for on_device in (False, True):
        optimizer, params = train.Adam(0.1, clip_norm=1.0), parameters("float32")
        advance(optimizer, params, range(1), "float32")
        if on_device:
            optimizer.lr = cupy.asarray(0.05)
            optimizer.steps = cupy.asarray(1.0)
            before = cupy.emulation.counts["synchronisations"] if hasattr(cupy, "emulation") else 0
        else:
            optimizer.lr = 0.05
        grads = {name: parameter.grad for name, parameter in params.items()}
        assert optimizer.fused(params) is not None
        for name in grads:
            params[name].grad = grads[name]
        optimizer.step(params)
        if on_device and hasattr(cupy, "emulation"):
            assert cupy.emulation.counts["synchronisations"] == before
        found.append({name: parameter.value.get() for name, parameter in params.items()})
        assert int(optimizer.steps) == 2
    assert all(np.array_equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))


def test_a_gradient_that_was_set_by_hand_may_be_wider_or_broadcast():
    """As one is that was scaled by a double-precision number of the device, to clip its norm."""
    parameter = nn.Parameter(cupy.asarray(np.arange(6.0).reshape(2, 3), dtype=np.float32))
    expected = parameter.value.get() - 0.5 * np.asarray([1, 2, 3], "float32")
    parameter.grad = cupy.asarray(np.asarray([1.0, 2.0, 3.0]))
    optimizer = train.SGD(0.5)
    assert optimizer.fused({"w": parameter}) is not None
    optimizer.step({"w": parameter})
    np.testing.assert_array_equal(parameter.value.get(), expected)


class Halved(train.SGD):
    """SGD's formula changed by a subclass."""

    def change(self, value, grad, slots, rate, t):
        return super().change(value, grad, slots, rate, t) / 2


@pytest.mark.parametrize("case", ["a formula of one's own", "complex", "a count that was never on the host"])
def test_what_no_kernel_knows_goes_by_the_formula(case):
    value = cupy.asarray(np.arange(6.0).reshape(2, 3), dtype=np.complex64 if case == "complex" else np.float32)
    parameter = nn.Parameter(value)
    optimizer = (Halved if case.startswith("a formula") else train.SGD)(0.5)
    if case.startswith("a count"):
        optimizer.steps = cupy.asarray(0.0, dtype=cupy.float32)
    expected = (value - (0.25 if case.startswith("a formula") else 0.5)).get()
    parameter.grad = cupy.ones_like(parameter.value)
    assert optimizer.fused({"w": parameter}) is None
    optimizer.step({"w": parameter})
    np.testing.assert_array_equal(parameter.value.get(), expected)
