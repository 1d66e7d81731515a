"""Normalisations against PyTorch and, where it rounds more than we do, against the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

import xpconv
from xpconv import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
SHAPES = {"1-D": (7, 30, 6), "2-D": (3, 9, 8, 6), "3-D": (2, 4, 5, 3, 6)}


def nchw(x):
    """Channels second, as PyTorch has them."""
    return x.movedim(-1, 1)


def nhwc(x):
    return x.movedim(1, -1)


def batch(x, gamma, beta):
    return nhwc(F.batch_norm(nchw(x), None, None, gamma, beta, training=True))


def given(x, gamma, beta, mean, var):
    return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta  # PyTorch's own has no gradient for its statistics


def layer(axes):
    return lambda x, gamma, beta: F.layer_norm(x, tuple(x.shape[axis] for axis in axes), gamma, beta)


def instance(x, gamma, beta):
    return nhwc(F.instance_norm(nchw(x), weight=gamma, bias=beta))


def group(groups):
    return lambda x, gamma, beta: nhwc(F.group_norm(nchw(x), groups, gamma, beta))


def response(size, **options):
    return lambda x: nhwc(F.local_response_norm(nchw(x), size, **options))


CASES = {
    "batch": (ops.batch_norm, batch, ["C", "C"], {}),
    "batch, given statistics": (ops.batch_norm, given, ["C", "C", "C", "positive"], {}),
    "layer, channels": (ops.layer_norm, layer((-1,)), ["C", "C"], {}),
    "layer, image": (ops.layer_norm, layer((-2, -1)), ["WC", "WC"], {"axes": (-2, -1)}),
    "instance": (ops.instance_norm, instance, ["C", "C"], {}),
    "group 1": (ops.group_norm, group(1), ["C", "C"], {"num_groups": 1}),
    "group 3": (ops.group_norm, group(3), ["C", "C"], {"num_groups": 3}),
    "response 3": (ops.local_response_norm, response(3, alpha=0.5), [], {"size": 3, "alpha": 0.5}),
    "response 4": (ops.local_response_norm, response(4, alpha=2.0, k=2.0), [], {"size": 4, "alpha": 2.0, "k": 2.0}),
    "response 20": (ops.local_response_norm, response(20, alpha=3.0), [], {"size": 20, "alpha": 3.0}),
}


def draw(kinds, shape):
    rng = np.random.default_rng(0)
    sizes = {"C": shape[-1:], "positive": shape[-1:], "WC": shape[-2:]}
    x = 2 * rng.standard_normal(shape) + 3
    return [x, *(rng.random(sizes[k]) + 0.5 if k == "positive" else rng.standard_normal(sizes[k]) for k in kinds)]


@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, shape, dtype):
    op, peer, kinds, options = CASES[name]
    arrays = [x.astype(dtype) for x in draw(kinds, shape)]
    names = ("x", "gamma", "beta", "mean", "var")[: len(arrays)]
    y, pullback = xpconv.vjp(op, **dict(zip(names, arrays, strict=True)), **options)
    inputs = [torch.tensor(x.astype("float64")).requires_grad_() for x in arrays]
    expected = peer(*inputs)
    dy = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    grads = pullback(dy)
    expected.backward(torch.tensor(dy.astype("float64")))
    for got, true in zip((y, *grads), (expected.detach(), *(x.grad for x in inputs)), strict=True):
        assert got.dtype == dtype
        size = float(true.abs().max())
        np.testing.assert_allclose(got, true.numpy(), rtol=0, atol=32 * ROUNDOFF[dtype] * size)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
@pytest.mark.parametrize(
    ("op", "axes", "options"),
    [
        (ops.batch_norm, (0, 1, 2), {"gamma": None, "beta": None}),
        (ops.layer_norm, (2, 3), {"axes": (2, 3)}),
        (ops.instance_norm, (1, 2), {}),
        (ops.group_norm, (1, 2, 3), {"num_groups": 1}),
    ],
    ids=["batch", "layer", "instance", "group"],
)
def test_a_large_offset_costs_no_digits(op, axes, options, offset):
    """Data that float32 still resolves is normalised to a few ulps; PyTorch loses digits even in float64."""
    x = (np.random.default_rng(0).standard_normal((5, 40, 30, 6)) + offset).astype("float32")
    dy = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
    centred = (x.astype("float64") - offset) - (x.astype("float64") - offset).mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(np.mean(centred**2, axes, keepdims=True) + 1e-5)
    hat = centred * rstd
    true = rstd * (dy - dy.astype("float64").mean(axes, keepdims=True) - hat * (dy * hat).mean(axes, keepdims=True))
    y, pullback = xpconv.vjp(op, x, **options)
    np.testing.assert_allclose(y, hat, rtol=0, atol=16 * 2.0**-24 * np.abs(hat).max())
    np.testing.assert_allclose(pullback(dy)[0], true, rtol=0, atol=16 * 2.0**-24 * np.abs(true).max())


@pytest.mark.parametrize("value", [0.7, 1e4 + 0.7])
def test_constant_data_is_normalised_to_nothing(value):
    """Every rounding of a constant image has the same sign: what the mean misses would be scaled up by 316."""
    x = np.full((8, 56, 56, 3), value, dtype="float32")
    y, mean, var = ops.batch_norm(x, None, None, return_stats=True)
    assert np.abs(y).max() < 1e-4
    assert np.abs(mean / x[0, 0, 0] - 1).max() < 1e-6
    assert np.abs(var).max() < 1e-10 * value


def test_statistics_are_returned_and_are_biased():
    x = np.random.default_rng(0).standard_normal((6, 5, 4, 3)) + 2
    y, mean, var = ops.batch_norm(x, None, None, return_stats=True)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-13)
    again, same_mean, same_var = ops.batch_norm(x, None, None, mean, var, return_stats=True)
    np.testing.assert_allclose(again, y, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(same_mean, mean)
    np.testing.assert_array_equal(same_var, var)


@pytest.mark.parametrize("name", CASES)
def test_boxes_give_what_the_whole_does_and_an_empty_batch_works(name):
    op, _, kinds, options = CASES[name]
    arrays = dict(zip(("x", "gamma", "beta", "mean", "var"), draw(kinds, (3, 40, 20, 6)), strict=False))
    y, pullback = xpconv.vjp(op, **arrays, **options)
    grads = pullback(y)
    with xpconv.workspace_limit("2K"):
        small, small_pullback = xpconv.vjp(op, **arrays, **options)
        small_grads = small_pullback(y)
    for got, true in zip((small, *small_grads), (y, *grads), strict=True):
        np.testing.assert_allclose(got, true, rtol=1e-10, atol=1e-12)
    empty = {**arrays, "x": arrays["x"][:0]}
    nothing, pullback = xpconv.vjp(op, **empty, **options)
    for x, gradient in zip(empty.values(), pullback(nothing), strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()


def test_axes_of_a_layer_norm_may_lie_anywhere():
    x, gamma = np.random.default_rng(0).standard_normal((3, 4, 5, 6)), np.random.default_rng(1).standard_normal((4, 6))
    y, pullback = xpconv.vjp(ops.layer_norm, x, gamma, axes=(3, 1))
    mean, var = x.mean((1, 3), keepdims=True), x.var((1, 3), keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * gamma[:, None, :], rtol=1e-12)
    assert [g.shape for g in pullback(y)] == [x.shape, gamma.shape]
    assert xpconv.check_gradients(ops.layer_norm, x, gamma, gamma, axes=(3, 1)).skipped == 0
