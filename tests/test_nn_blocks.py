"""Residual blocks in training: what joins a convolution or norm, sum, activation or gradient, is what it was apart."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from joined import RNG, Doubled, X, calls_of, settled

import xpconv
from xpconv import nn, ops
from xpconv.nn import fusion

BODIES = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "conv without bias": lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False),
    "sequence": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, activation="relu"), nn.Conv2d(6, 4, 1)),
    "norm last": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm(4)),
}


@pytest.mark.parametrize("shortcut", [None, lambda: nn.Conv2d(4, 4, 1)])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("body", BODIES)
def test_gradients_of_a_block_are_those_of_its_parts(body, activation, shortcut):
    block = nn.Residual(BODIES[body](), None if shortcut is None else shortcut(), activation).initialize(seed=3)
    block.to(dtype="float64")
    y, pullback = block.vjp(X)
    dy = RNG.standard_normal(y.shape)
    dx = pullback(dy)
    grads = {name: p.grad for name, p in block.parameters().items()}
    block.zero_grad()

    main, main_back = block.body.vjp(X)
    side, side_back = (X, lambda dz: dz) if shortcut is None else block.shortcut.vjp(X)
    z, dz = main + side, dy
    expected = z if activation is None else getattr(ops, activation)(z)
    if activation is not None:
        (dz,) = xpconv.vjp(getattr(ops, activation), z)[1](dy)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, main_back(dz) + side_back(dz), rtol=1e-11, atol=1e-12)
    for name, p in block.parameters().items():
        np.testing.assert_allclose(grads[name], p.grad, rtol=1e-10, atol=1e-11)


def test_a_blocks_sum_and_activation_cost_no_pass_of_their_own_in_training(monkeypatch):
    block, x = nn.Residual(BODIES["sequence"](), activation="relu").initialize(), X.astype("float32")
    asked = calls_of(lambda: block.vjp(x), monkeypatch)
    assert asked == ["conv_fprop", "conv_fprop"]


def test_frozen_layers_and_needs_input_skip_what_is_not_needed(monkeypatch):
    block, x = nn.Residual(BODIES["sequence"](), activation="relu").initialize(), X.astype("float32")
    block.freeze()
    y, pullback = block.vjp(x, needs_input=False)
    assert pullback(y) is None
    assert all(p.grad is None for p in block.parameters().values())
    block.body[1].unfreeze()
    y, pullback = block.vjp(x, needs_input=False)
    asked = calls_of(lambda: pullback(y), monkeypatch)
    assert "conv_wgrad" in asked
    assert "conv_dgrad" not in asked
    assert block.body[0].weight.grad is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_norm_takes_the_sum_of_its_block_in_training(dtype, activation, training, monkeypatch):
    """With the same answers, gradients and running statistics as the norm and the sum one after the other."""
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm(4))
    joined = settled(nn.Sequential(nn.Residual(body, activation=activation)), dtype)
    apart, x = copy.deepcopy(joined), X.astype(dtype)
    dy = np.random.default_rng(1).standard_normal(X.shape).astype(dtype)
    found, asked = [], []
    for net in (joined, apart):
        with monkeypatch.context() as patch:
            if net is apart:
                patch.setattr(fusion, "plus_vjp", lambda *args: None)
            net.zero_grad()
            results = []
            asked.append(calls_of(lambda: results.extend(net.vjp(x, training=training)), monkeypatch))  # noqa: B023
            y, pullback = results
            found.append((y, pullback(dy), {n: p.grad for n, p in net.parameters().items()}, net.state_dict()))
    assert ("add" in asked[0]) == (dtype == "float16")
    assert "add" in asked[1]
    close = {"float16": 0, "float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=close, atol=close)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=close, atol=10 * close)
    for part in (2, 3):
        for name, value in found[1][part].items():
            np.testing.assert_allclose(found[0][part][name], value, rtol=10 * close, atol=100 * close, err_msg=name)


FORKS = {
    "conv first": lambda: (nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm(6, activation="relu")),
    "conv with an activation first": lambda: (nn.Conv2d(4, 6, 3, padding=1, activation="silu"),),
    "sequence first": lambda: (nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm(6)), nn.ReLU()),
    "norm first": lambda: (nn.BatchNorm(4), nn.Conv2d(4, 6, 1)),
    "transposed first": lambda: (nn.ConvTranspose2d(4, 6, 3, padding=1),),
    "own layer first": lambda: (Doubled(4, 6, 1),),
}
SHORTCUTS = {
    "none": (lambda: None, 1),
    "identity": (lambda: nn.IdentityShortcut(5, stride=2), 2),
    "projection": (lambda: nn.Conv2d(4, 5, 1, stride=2), 2),
}


@pytest.mark.parametrize("engine", ["auto", "portable", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("first", FORKS)
def test_the_first_convolution_of_a_block_adds_the_gradient_of_its_shortcut(
    first, shortcut, dtype, engine, monkeypatch
):
    """With the gradients of the convolution and the sum one after the other; else the sum is a pass of its own."""
    make, stride = SHORTCUTS[shortcut]
    body = nn.Sequential(*FORKS[first](), nn.Conv2d(6, 4 if shortcut == "none" else 5, 3, stride=stride, padding=1))
    block = nn.Residual(body, make(), activation="relu").initialize(seed=2).to(dtype=dtype)
    x = X.astype(dtype)

    def run():
        block.zero_grad()
        y, pullback = block.vjp(x)
        asked = calls_of(lambda: found.append(pullback(np.ones_like(y))), monkeypatch)
        return asked, {name: p.grad for name, p in block.parameters().items()}

    found = []
    with xpconv.use_engine(engine):
        asked, grads = run()
        with monkeypatch.context() as patch:
            patch.setattr(fusion, "_CONVOLUTIONS", ())
            asked_apart, grads_apart = run()
    joined = first in ("conv first", "conv with an activation first", "sequence first") and dtype != "float16"
    assert ("add" in asked, "add" in asked_apart) == (not joined, True)
    close = {"float16": 2e-2, "float32": 2e-6, "float64": 1e-14}[dtype] if joined else 0
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=close * np.abs(found[1]).max())
    assert grads.keys() == grads_apart.keys()
    for name, grad in grads_apart.items():
        np.testing.assert_allclose(grads[name], grad, rtol=10 * close, atol=100 * close, err_msg=name)


def test_a_block_that_needs_no_input_gradient_adds_none(monkeypatch):
    net = nn.Sequential(
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm(4)), activation="relu"),
    ).initialize(seed=0)
    y, pullback = net.vjp(X.astype("float32"), needs_input=False)
    asked = calls_of(lambda: pullback(y), monkeypatch)
    assert not {"add", "conv_dgrad"} & set(asked)


def test_a_shortcut_of_another_dtype_raises_what_the_sum_raises():
    class Wide(nn.Module):
        """A shortcut whose gradient is of another dtype."""

        def vjp(self, x, training=True, needs_input=True):
            """The input, and its gradient in double precision."""
            return x, lambda dy: dy.astype("float64")

    block = nn.Residual(nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)), Wide()).initialize(seed=0)
    y, pullback = block.vjp(X.astype("float32"))
    with pytest.raises(TypeError, match="add: "):
        pullback(y)
