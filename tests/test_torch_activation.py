"""Activations, softmax, linear layers and losses against PyTorch in float64, values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpconv
from xpconv import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")  # what inf - inf says on NumPy

# (op, options, the same in PyTorch)
ACTIVATIONS = {
    "relu": (ops.relu, {}, F.relu),
    "relu6": (ops.relu6, {}, F.relu6),
    "silu": (ops.silu, {}, F.silu),
    "sigmoid": (ops.sigmoid, {}, torch.sigmoid),
    "tanh": (ops.tanh, {}, torch.tanh),
    "softplus": (ops.softplus, {}, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "hard_swish": (ops.hard_swish, {}, F.hardswish),
    # PyTorch's own rounds 1 / 6 to float32 in the gradient.
    "hard_sigmoid": (ops.hard_sigmoid, {}, lambda x: F.relu6(x + 3) / 6),
    "hard_sigmoid 0.2": (ops.hard_sigmoid, {"alpha": 0.2, "beta": 0.4}, lambda x: F.hardtanh(0.2 * x + 0.4, 0, 1)),
    "clip": (ops.clip, {"min": -1.0, "max": 3.0}, lambda x: x.clamp(-1, 3)),
    "clip below": (ops.clip, {"min": 0.5}, lambda x: x.clamp(min=0.5)),
    "clip above": (ops.clip, {"max": 0.5}, lambda x: x.clamp(max=0.5)),
    "clip crossed": (ops.clip, {"min": 2.0, "max": 1.0}, lambda x: x.clamp(2, 1)),
    "clip open": (ops.clip, {}, lambda x: x * 1.0),
    "leaky_relu": (ops.leaky_relu, {}, F.leaky_relu),
    "leaky_relu -2": (ops.leaky_relu, {"slope": -2.0}, lambda x: F.leaky_relu(x, -2.0)),
    "elu": (ops.elu, {}, F.elu),
    "elu 0.3": (ops.elu, {"alpha": 0.3}, lambda x: F.elu(x, 0.3)),
    "gelu": (ops.gelu, {}, F.gelu),
    "gelu tanh": (ops.gelu, {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    "softmax": (ops.softmax, {}, lambda x: torch.softmax(x, -1)),
    "softmax 0": (ops.softmax, {"axis": 0}, lambda x: torch.softmax(x, 0)),
    "log_softmax": (ops.log_softmax, {}, lambda x: torch.log_softmax(x, -1)),
    "log_softmax 1": (ops.log_softmax, {"axis": 1}, lambda x: torch.log_softmax(x, 1)),
}
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
in_dtypes = pytest.mark.parametrize("dtype", ROUNDOFF)


def compare(op, peer, arrays, options, dtype, ulps=16.0):
    """Value and gradients, in units of roundoff of the largest of each."""
    arrays = [np.asarray(x, dtype=dtype) if x.dtype.kind == "f" else x for x in arrays]
    inputs = [
        torch.tensor(x.astype("float64")).requires_grad_() if x.dtype.kind == "f" else torch.tensor(x) for x in arrays
    ]
    y, pullback = xpconv.vjp(op, *arrays, **options)
    expected = peer(*inputs)
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape), dtype=dtype)
    grads = pullback(dy)
    expected.backward(torch.tensor(dy.astype("float64")))
    for got, true in zip((y, *grads), (expected.detach(), *(x.grad for x in inputs)), strict=True):
        assert (got is None) == (true is None)
        if got is not None:
            assert got.dtype == dtype
            assert isinstance(got, np.ndarray)
            size = float(np.abs(true.numpy()).max(initial=1.0))
            np.testing.assert_allclose(got, true.numpy(), rtol=0, atol=ulps * ROUNDOFF[dtype] * size)


@in_dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    op, options, peer = ACTIVATIONS[name]
    compare(op, peer, [3 * np.random.default_rng(0).standard_normal((4, 5, 33))], options, dtype)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if "softmax" not in name])
def test_at_borders_far_out_and_beyond(name):
    """Values at nan and infinities too; gradients at all finite points, the corners among them."""
    op, options, peer = ACTIVATIONS[name]
    finite = np.array([0.0, -3.0, 3.0, 6.0, -1.0, 0.5, 2.0, 1.0, 30.0, -30.0, 700.0, -700.0, 1e-30, -1e-30])
    x = np.concatenate([finite, [math.nan, math.inf, -math.inf]])
    y, pullback = xpconv.vjp(op, x, **options)
    other = torch.tensor(x, requires_grad=True)
    expected = peer(other)
    expected.backward(torch.ones_like(other))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-14, atol=1e-15)
    got, true = pullback(np.ones_like(x))[0][: finite.size], other.grad.numpy()[: finite.size]
    np.testing.assert_allclose(got, true, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("x", [np.array(-0.5), np.zeros((0, 3)), np.full((1, 1), 2.0)], ids=["0-d", "empty", "one"])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if "softmax" not in name])
def test_every_shape(name, x):
    op, options, peer = ACTIVATIONS[name]
    compare(op, peer, [x], options, "float64")


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1,)])
def test_softmax_of_next_to_nothing(op, shape):
    y, pullback = xpconv.vjp(op, np.zeros(shape))
    assert y.shape == pullback(y)[0].shape == shape


@pytest.mark.parametrize("shape", [(5,), (1,), ()])
@in_dtypes
def test_prelu(shape, dtype):
    rng = np.random.default_rng(0)
    x, slope = rng.standard_normal((40, 30, 5)), rng.standard_normal(shape)

    def peer(x, slope):
        return torch.where(x > 0, x, slope * x)

    compare(ops.prelu, peer, [x, slope], {}, dtype)


def test_boxes_give_what_the_whole_does():
    x = np.random.default_rng(0).standard_normal((17, 129, 3))
    for name in ("gelu", "softmax 0", "softmax"):
        op, options, _ = ACTIVATIONS[name]
        with xpconv.use_engine("portable"):
            y, pullback = xpconv.vjp(op, x, **options)
        with xpconv.use_engine("portable"), xpconv.workspace_limit("1K"):
            small, small_pullback = xpconv.vjp(op, x, **options)
            np.testing.assert_allclose(small_pullback(x)[0], pullback(x)[0], rtol=0, atol=1e-14)
        np.testing.assert_allclose(small, y, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("dtype", "lowest"), [("float64", -37.0), ("float32", -12.5)])
def test_the_normal_distribution_function_keeps_its_digits_in_the_tail(dtype, lowest):
    """gelu(x) / x is Φ(x) = erfc(-x / √2) / 2, relative to which PyTorch's own loses all digits."""
    x = np.linspace(lowest, 8.0, 20011).astype(dtype)
    true = np.array([math.erfc(-float(v) * math.sqrt(0.5)) / 2 for v in x])
    # math.erfc takes its argument rounded: relative x² ulps of float64
    allowed = 8 * ROUNDOFF[dtype] + 2 * x.astype("float64") ** 2 * ROUNDOFF["float64"]
    assert np.all(np.abs(ops.gelu(x) / x - true) <= allowed * true)


@in_dtypes
@pytest.mark.parametrize("activation", [None, "relu", "silu", "tanh"])
def test_linear(activation, dtype):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 50, 200)), rng.standard_normal((200, 7)) / 14, rng.standard_normal((1, 1, 7))

    def peer(x, w, b):
        z = x @ w + b
        return z if activation is None else ACTIVATIONS[activation][2](z)

    compare(ops.linear, peer, [x, w, b], {"activation": activation}, dtype, ulps=64)


def test_linear_of_complex_numbers_and_of_one_row():
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in ((6,), (6, 3), (3,)))
    y, pullback = xpconv.vjp(ops.linear, x, w, b)
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = inputs[0] @ inputs[1] + inputs[2]
    expected.backward(torch.tensor(np.conj(y)))
    for got, true in zip((y, *pullback(np.conj(y))), (expected.detach(), *(a.grad for a in inputs)), strict=True):
        np.testing.assert_allclose(got, true.numpy(), rtol=1e-13)


@in_dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(reduction, dtype):
    rng = np.random.default_rng(0)
    logits, target = 3 * rng.standard_normal((9, 4, 10)), rng.random((9, 4, 10))
    labels = rng.integers(0, 10, (9, 4))
    for smoothing in (0.0, 0.1):

        def cross_entropy(z, labels, smoothing=smoothing):
            loss = F.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction=reduction, label_smoothing=smoothing)
            return loss if reduction != "none" else loss.reshape(labels.shape)

        options = {"reduction": reduction, "label_smoothing": smoothing}
        compare(ops.softmax_cross_entropy, cross_entropy, [logits, labels], options, dtype)

    def mse(y, target):
        return F.mse_loss(y, target, reduction=reduction)

    def binary(z, target):
        return F.binary_cross_entropy_with_logits(z, target, reduction=reduction)

    compare(ops.mse, mse, [logits, target], {"reduction": reduction}, dtype)
    compare(ops.binary_cross_entropy_with_logits, binary, [logits, target], {"reduction": reduction}, dtype)


def test_an_unknown_label_spoils_its_own_sample_only():
    z, labels = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 3, -1, 2], dtype="int8")
    losses, pullback = xpconv.vjp(ops.softmax_cross_entropy, z, labels, reduction="none")
    assert np.isnan(losses).tolist() == [False, True, True, False]
    gradient, none = pullback(np.ones(4))
    assert none is None
    assert (
        np.isnan(gradient).all(axis=1).tolist() == np.isnan(gradient).any(axis=1).tolist() == [False, True, True, False]
    )
    assert np.isnan(ops.softmax_cross_entropy(z, labels))


@pytest.mark.parametrize("op", [ops.mse, ops.binary_cross_entropy_with_logits])
def test_losses_of_extreme_logits_and_of_nothing(op):
    one = np.array([1.0])
    assert np.isfinite(ops.binary_cross_entropy_with_logits(1e4 * one, 0 * one))
    assert ops.softmax_cross_entropy(np.array([[1e4, -1e4]]), np.array([0])) == 0.0
    assert op(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0
    assert xpconv.vjp(op, np.zeros((0, 3)), np.zeros((0, 3)))[1](np.array(1.0))[0].shape == (0, 3)
