"""Optimizers against PyTorch's, and the laws that all of them obey, on every array library that is here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from targets import missing

from xpconv import backend, nn, train, use_engine

BACKENDS = ("numpy", "torch", "array_api_strict", "array_api_strict:device1", "cupy")
SHAPES = {"0.w": (3, 2), "0.b": (2,), "head.w": (2, 2, 1, 4)}

MAKERS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd, momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd, nesterov, decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam, decay": ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.2}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw, strong": ("AdamW", {"lr": 0.03, "betas": (0.7, 0.9), "weight_decay": 0.5}),
    "sgd, clipped": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "clip_norm": 2.0}),
    "adamw, clipped at times": ("AdamW", {"lr": 0.01, "clip_norm": 4.0}),
}


@pytest.fixture(params=MAKERS, ids=lambda name: name.replace(", ", "-"))
def made(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return MAKERS[request.param]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> backend.Backend:
    reason = missing(request.param)
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return backend.get(request.param)


def numbers(seed: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    if dtype.startswith("complex"):
        found = {name: value + 1j * rng.standard_normal(value.shape) for name, value in found.items()}
    return {name: value.astype(dtype) for name, value in found.items()}


def parameters(place: backend.Backend, dtype: str = "float64") -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(place.asarray(value, dtype)) for name, value in numbers(0, dtype).items()}


def advance(optimizer: train.Optimizer, params: dict[str, nn.Parameter], steps: range, dtype: str = "float64") -> None:
    for i in steps:
        for name, grad in numbers(100 + i, dtype).items():
            params[name].grad = backend.backend_of(params[name].value).asarray(grad, dtype)
        optimizer.step(params)


def host(params: dict[str, nn.Parameter]) -> dict[str, np.ndarray]:
    return {name: np.array(backend.to_numpy(p.value)) for name, p in params.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
def test_the_formulas_are_pytorchs(made: tuple[str, dict[str, Any]], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind, options = made
    params = parameters(backend.get("numpy"), dtype)
    advance(getattr(train, kind)(**options), params, range(6), dtype)
    theirs = {name: torch.nn.Parameter(torch.asarray(value)) for name, value in numbers(0, dtype).items()}
    reference = getattr(torch.optim, kind)(theirs.values(), **{k: v for k, v in options.items() if k != "clip_norm"})
    for i in range(6):
        for name, grad in numbers(100 + i, dtype).items():
            theirs[name].grad = torch.asarray(grad)
        if "clip_norm" in options:
            torch.nn.utils.clip_grad_norm_(theirs.values(), options["clip_norm"])
        reference.step()
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    for name, value in host(params).items():
        np.testing.assert_allclose(value, theirs[name].detach().numpy(), rtol=tolerance, atol=tolerance)


def test_every_backend_gives_the_same(made: tuple[str, dict[str, Any]], place: backend.Backend) -> None:
    kind, options = made
    here, there = parameters(backend.get("numpy"), "float32"), parameters(place, "float32")
    for params in (here, there):
        advance(getattr(train, kind)(**options), params, range(5), "float32")
    for name, p in there.items():
        assert backend.library(p.value) == place.library
        np.testing.assert_allclose(backend.to_numpy(p.value), here[name].value, rtol=2e-6, atol=1e-7)


def test_only_trainable_parameters_with_a_gradient_change(made: tuple[str, dict[str, Any]]) -> None:
    kind, options = made
    params = parameters(backend.get("numpy"))
    params["0.w"].trainable = False
    before, versions = host(params), {name: p.version for name, p in params.items()}
    grads = numbers(100)
    params["0.w"].grad, params["0.b"].grad = grads["0.w"], grads["0.b"].copy()
    getattr(train, kind)(**options).step(params)
    changed = {name for name, value in host(params).items() if not np.array_equal(value, before[name])}
    assert changed == {"0.b"}
    assert {name for name, p in params.items() if p.version != versions[name]} == {"0.b"}
    np.testing.assert_array_equal(params["0.b"].grad, grads["0.b"])


def test_a_parameter_that_comes_late_begins_at_its_own_first_step(made: tuple[str, dict[str, Any]]) -> None:
    kind, options = made
    early, late = parameters(backend.get("numpy")), parameters(backend.get("numpy"))
    advance(getattr(train, kind)(**options), early, range(1))
    optimizer = getattr(train, kind)(**options)
    advance(optimizer, {"other": nn.Parameter(np.ones((2, 2)))} | late, range(0))
    for _ in range(3):
        optimizer.step({"0.w": parameters(backend.get("numpy"))["0.w"]})
    advance(optimizer, late, range(1))
    np.testing.assert_allclose(late["head.w"].value, early["head.w"].value, rtol=1e-12)


def test_a_state_goes_on_where_it_was_left_on_any_backend(
    made: tuple[str, dict[str, Any]], place: backend.Backend
) -> None:
    kind, options = made
    whole = parameters(backend.get("numpy"))
    advance(getattr(train, kind)(**options), whole, range(6))
    params, first = parameters(backend.get("numpy")), getattr(train, kind)(**options)
    advance(first, params, range(3))
    state = first.state_dict()
    untouched = copy.deepcopy(state)
    moved = {name: nn.Parameter(place.asarray(value)) for name, value in host(params).items()}
    second = getattr(train, kind)(**options)
    second.load_state_dict(state)
    advance(second, moved, range(3, 6))
    assert second.steps == 6
    for name, value in host(moved).items():
        np.testing.assert_allclose(value, whole[name].value, rtol=1e-12)
    for key, value in untouched.items():
        np.testing.assert_array_equal(state[key], value)


def test_rate_and_step_count_may_be_arrays_of_the_device(
    made: tuple[str, dict[str, Any]], place: backend.Backend
) -> None:
    kind, options = made
    plain, replayed = parameters(place), parameters(place)
    advance(getattr(train, kind)(**options), plain, range(4))
    optimizer = getattr(train, kind)(**options)
    optimizer.lr, optimizer.steps = place.asarray(options["lr"], "float64"), place.asarray(0.0, "float64")
    count = optimizer.steps
    advance(optimizer, replayed, range(4))
    assert optimizer.steps is count, "a captured graph counts in one buffer"
    assert float(count) == 4
    for name, value in host(replayed).items():
        np.testing.assert_allclose(value, backend.to_numpy(plain[name].value), rtol=1e-12)


def test_numbers_of_numpy_do_not_widen_the_parameters(made: tuple[str, dict[str, Any]]) -> None:
    kind, options = made
    widening = {name: np.float64(value) if isinstance(value, float) else value for name, value in options.items()}
    plain, params = parameters(backend.get("numpy"), "float32"), parameters(backend.get("numpy"), "float32")
    advance(getattr(train, kind)(**options), plain, range(3), "float32")
    optimizer = getattr(train, kind)(**widening)
    optimizer.lr = np.float64(options["lr"])
    advance(optimizer, params, range(3), "float32")
    for name, p in params.items():
        assert p.value.dtype == np.float32
        np.testing.assert_array_equal(p.value, plain[name].value)


def test_half_precision_is_updated_in_single() -> None:
    params = {"w": nn.Parameter(np.ones(4, np.float16))}
    optimizer = train.Adam(1e-2)
    for _ in range(3):
        params["w"].grad = np.full(4, 1e-3, np.float16)  # its square is below the smallest float16
        optimizer.step(params)
    assert params["w"].value.dtype == np.float16
    np.testing.assert_allclose(params["w"].value, 1 - 3e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_clipping_is_by_the_norm_of_all_that_is_updated_and_no_square_overflows(
    dtype: str, place: backend.Backend
) -> None:
    """A gradient of a frozen parameter does not count, one that is broadcast counts for all its numbers."""
    if dtype == "float16" and place.library == "array_api_strict":
        pytest.skip("has no float16")
    large = {"float16": 6e4, "float32": 1e30, "float64": 1e30}[dtype]
    values = {name: np.zeros(shape, dtype) for name, shape in {"a": (3, 4), "b": (5,), "frozen": (2,)}.items()}
    params = {name: nn.Parameter(place.asarray(value)) for name, value in values.items()}
    grads = {"a": np.full((4,), large, dtype), "b": np.arange(5).astype(dtype), "frozen": np.full(2, large, dtype)}
    for name, parameter in params.items():
        parameter.grad = place.asarray(grads[name])
    params["frozen"].trainable = False
    train.SGD(1.0, clip_norm=3.0).step(params)
    norm = np.sqrt(12 * float(grads["a"][0]) ** 2 + 30)
    tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    found = host(params)
    np.testing.assert_allclose(found["a"], np.full((3, 4), -3 * float(grads["a"][0]) / norm), rtol=tolerance)
    np.testing.assert_allclose(found["b"], -3 / norm * np.arange(5), rtol=tolerance, atol=1e-7 * (dtype == "float16"))
    assert not found["frozen"].any()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_in_pytorch(bad: float) -> None:
    torch = pytest.importorskip("torch")
    grads = {"w": np.asarray([1.0, bad, -2.0], "float32"), "b": np.ones(2, "float32")}
    theirs = {name: torch.nn.Parameter(torch.zeros(len(grad))) for name, grad in grads.items()}
    for name, grad in grads.items():
        theirs[name].grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
    for engine in ("auto", "portable"):
        params = {name: nn.Parameter(np.zeros(len(grad), "float32")) for name, grad in grads.items()}
        for name, grad in grads.items():
            params[name].grad = grad.copy()
        with use_engine(engine):
            train.SGD(1.0, clip_norm=1.0).step(params)
        for name, value in host(params).items():
            np.testing.assert_array_equal(value, -theirs[name].grad.numpy())


@dataclass(eq=False)
class Plain(train.Optimizer):
    """An optimizer of one's own."""

    lr: Any = 0.5
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def change(self, value: Any, grad: Any, slots: list[Any], rate: Any, t: Any) -> Any:
        return rate * grad


def test_an_optimizer_of_ones_own_is_clipped_by_a_norm_that_may_be_set() -> None:
    optimizer, params = Plain(clip_norm=1.0), {"w": nn.Parameter(np.zeros(2))}
    params["w"].grad = np.asarray([3.0, 4.0])
    optimizer.step(params)
    np.testing.assert_allclose(params["w"].value, [-0.3, -0.4], rtol=1e-6)
    np.testing.assert_array_equal(params["w"].grad, [3.0, 4.0])
    optimizer.clip_norm = None
    optimizer.step(params)
    np.testing.assert_allclose(params["w"].value, [-1.8, -2.4], rtol=1e-6)
    optimizer.clip_norm = 0
    with pytest.raises(ValueError, match="Plain: clip_norm must be a positive number, or None"):
        optimizer.step(params)
    assert optimizer.steps == 2


def test_another_network_is_refused() -> None:
    optimizer = train.Adam()
    params = {"w": nn.Parameter(np.ones(3))}
    params["w"].grad = np.ones(3)
    optimizer.step(params)
    other = {"w": nn.Parameter(np.ones((2, 2)))}
    other["w"].grad = np.ones((2, 2))
    with pytest.raises(
        ValueError, match=r"(?s)Adam: what is kept for parameter 'w' has another shape.*\(3,\).*\(2, 2\)"
    ):
        optimizer.step(other)


@pytest.mark.parametrize(
    "state", [{}, {"steps": 3, "w.momentum": np.ones(2)}, {"steps": 3, "w.steps": 3, "w.m": np.ones(2)}]
)
def test_a_foreign_state_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Adam: this is not the state of Adam\."):
        train.Adam().load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("SGD", {"lr": -0.1}, r"SGD: lr must be .* at least 0"),
        ("SGD", {"lr": float("nan")}, r"SGD: lr must be"),
        ("SGD", {"lr": float("inf")}, r"SGD: lr must be"),
        ("SGD", {"lr": 0.1, "momentum": 1.0}, r"SGD: momentum must be .* below 1"),
        ("SGD", {"lr": 0.1, "weight_decay": -1}, r"SGD: weight_decay must be"),
        ("SGD", {"lr": 0.1, "nesterov": True}, r"SGD: nesterov needs a momentum"),
        ("SGD", {"lr": "0.1"}, r"SGD: lr must be"),
        ("Adam", {"betas": (0.9, 1.0)}, r"Adam: betas\[1\] must be"),
        ("Adam", {"betas": 0.9}, r"Adam: betas must be two numbers"),
        ("Adam", {"eps": -1e-8}, r"Adam: eps must be"),
        ("AdamW", {"weight_decay": -0.1}, r"AdamW: weight_decay must be"),
        (
            "SGD",
            {"lr": 0.1, "clip_norm": 0},
            r"SGD: clip_norm must be .*\n  given: clip_norm=0\n  1\.0 is usual",
        ),
        ("Adam", {"clip_norm": float("inf")}, r"Adam: clip_norm must be"),
        ("Adam", {"clip_norm": float("nan")}, r"Adam: clip_norm must be"),
        ("AdamW", {"clip_norm": True}, r"AdamW: clip_norm must be"),
        ("AdamW", {"clip_norm": "1"}, r"AdamW: clip_norm must be"),
    ],
)
def test_bad_hyperparameters_are_named(kind: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        getattr(train, kind)(**options)


def test_a_network_in_place_of_its_parameters_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pass net\.parameters\(\)"):
        train.SGD(0.1).step(nn.Sequential(nn.Linear(2, 2)).initialize())  # type: ignore[arg-type]
