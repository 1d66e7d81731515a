"""The compiled update of all parameters computes what the formulas of `train.optim` do, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import nn, train

pytestmark = pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here")

MAKERS = {
    "sgd": lambda: train.SGD(0.1),
    "sgd, decay": lambda: train.SGD(0.1, weight_decay=0.01),
    "sgd, momentum": lambda: train.SGD(0.1, momentum=0.9),
    "sgd, nesterov, decay": lambda: train.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    "adam": lambda: train.Adam(0.01),
    "adam, decay": lambda: train.Adam(0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2),
    "adamw": lambda: train.AdamW(0.03, betas=(0.7, 0.9), weight_decay=0.5),
    "adamw, no decay": lambda: train.AdamW(0.03, weight_decay=0.0),
    "sgd, clipped": lambda: train.SGD(0.1, momentum=0.9, clip_norm=30.0),
    "adamw, clipped": lambda: train.AdamW(0.03, clip_norm=30.0),
}
# Several tasks, for several threads, none, one number, some that fill no vector, and both sides of a task's end.
SHAPES = [(600, 250), (0, 3), (), (3,), (17,), (2, 16), (32768,), (32769,)]


def parameters(dtype: str) -> dict[str, nn.Parameter]:
    rng = np.random.default_rng(0)
    return {str(i): nn.Parameter(np.asarray(rng.standard_normal(shape), dtype)) for i, shape in enumerate(SHAPES)}


def advance(optimizer: train.Optimizer, params: dict[str, nn.Parameter], steps: int, dtype: str) -> None:
    for step in range(steps):
        rng = np.random.default_rng(step)
        for i, parameter in enumerate(params.values()):
            grad = np.asarray(rng.standard_normal(SHAPES[i]), dtype)
            parameter.grad = None if (i + step) % 5 == 0 and step else grad  # some begin later than others
            if grad.ndim == 2 and i % 2 == 0:
                parameter.grad = np.asarray(grad, order="F")
        optimizer.step(params)


def updated(name: str, dtype: str, engine: str, threads: int) -> tuple[dict[str, nn.Parameter], dict[str, np.ndarray]]:
    """Parameters after some steps, and all numbers that there are then."""
    optimizer, params = MAKERS[name](), parameters(dtype)
    with xpconv.use_engine(engine), xpconv.set_num_threads(threads):
        assert (optimizer.fused(params) is not None) == (engine == "numba")
        advance(optimizer, params, 4, dtype)
    return params, {key: p.value for key, p in params.items()} | optimizer.state_dict()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_job_computes_what_the_formula_says_with_any_number_of_threads(name, dtype):
    plain, expected = updated(name, dtype, "portable", 1)
    # A norm is summed up in another order than the formula has; that is rounded away where the share is to float32.
    close = (
        {"rtol": 1e-12, "atol": 1e-14} if MAKERS[name]().clip_norm and dtype == "float64" else {"rtol": 0, "atol": 0}
    )
    bits = set()
    for threads in (1, 2, 5):
        fused, found = updated(name, dtype, "numba", threads)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, **close)
        for key, parameter in plain.items():
            assert fused[key].version == parameter.version
            assert not fused[key].value.flags.writeable
        bits.add(b"".join(np.asarray(value).tobytes() for value in found.values()))
    assert len(bits) == 1


def test_parameters_of_two_dtypes_are_updated_together():
    params = {"w": nn.Parameter(np.ones(5, "float32")), "v": nn.Parameter(np.ones((2, 3)))}
    for parameter in params.values():
        parameter.grad = np.ones_like(parameter.value)
    optimizer = train.SGD(0.25, momentum=0.5)
    assert optimizer.fused(params) is not None
    optimizer.step(params)
    optimizer.step(params)
    assert {name: float(p.value.max()) for name, p in params.items()} == {"w": 0.375, "v": 0.375}


def test_a_gradient_that_was_set_by_hand_may_be_wider_or_broadcast():
    parameter = nn.Parameter(np.arange(6, dtype="float32").reshape(2, 3))
    expected = parameter.value - 0.5 * np.asarray([1, 2, 3], "float32")
    parameter.grad = np.asarray([1.0, 2.0, 3.0])
    train.SGD(0.5).step({"w": parameter})
    np.testing.assert_array_equal(parameter.value, expected)


def test_packed_weights_are_made_anew_after_an_update():
    layer = nn.Conv2d(4, 8, 3, bias=False)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 4)).astype("float32")
    optimizer = train.SGD(0.1)
    for _ in range(2):
        y, pullback = layer.vjp(x)
        pullback(np.ones_like(y))
        optimizer.step(layer.parameters())
        assert np.array_equal(layer(x), xpconv.ops.conv(x, np.array(layer.weight.value)))


class Halved(train.SGD):
    """SGD's formula changed by a subclass."""

    def change(self, value, grad, slots, rate, t):
        return super().change(value, grad, slots, rate, t) / 2


@pytest.mark.parametrize("case", ["a formula of one's own", "complex64", "float16"])
def test_what_no_kernel_knows_goes_by_the_formula(case):
    value = np.arange(6).reshape(2, 3).astype(case if case in ("complex64", "float16") else "float32")
    parameter = nn.Parameter(value)
    optimizer = (Halved if case.startswith("a formula") else train.SGD)(0.5)
    parameter.grad = np.ones_like(value)
    assert optimizer.fused({"w": parameter}) is None
    optimizer.step({"w": parameter})
    np.testing.assert_array_equal(parameter.value, value - (0.25 if case.startswith("a formula") else 0.5))
