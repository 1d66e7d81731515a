"""Complex arrays on engines of real kernels: which take them, and in what memory they may lie; values are the laws'."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import xpconv
from xpconv import nn, ops, train

pytest.importorskip("numba")


def numbers(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex64")


def test_compiled_kernels_take_complex_convolutions():
    x, w, b = numbers(2, 5, 6, 4), numbers(3, 3, 2, 6), numbers(6)
    for op in (ops.conv, ops.conv_transpose):
        weights = w if op is ops.conv else numbers(3, 3, 3, 4)
        told = xpconv.explain(op, x, weights, b, groups=2)["numba"]
        assert told.startswith("chosen: conv")
        assert "as real numbers, of twice the channels: " in told


@pytest.mark.parametrize(
    ("op", "options"),
    [
        (ops.avg_pool, {"kernel_size": 2}),
        (ops.adaptive_avg_pool, {"output_size": 2}),
        (ops.resize, {"output_size": 7}),
        (ops.pad, {"padding": 1}),
        (ops.pad, {"padding": 2, "mode": "wrap"}),
    ],
)
def test_what_does_the_same_to_each_channel_takes_pairs_of_them(op, options):
    x = numbers(2, 4, 6, 3)
    assert xpconv.explain(op, x, **options)["numba"].startswith("chosen")
    y, pullback = xpconv.vjp(op, x, **options)
    re, im = (op(part, **options) for part in (x.real, x.imag))
    np.testing.assert_array_equal(y, re + 1j * im)
    np.testing.assert_array_equal(pullback(y)[0].imag, xpconv.vjp(op, x.real, **options)[1](y.imag)[0])


def test_arrays_that_do_not_lie_densely_are_copied():
    x, w, b, beside = numbers(2, 5, 6, 4), numbers(3, 3, 4, 6), numbers(6), numbers(2, 3, 4, 6)
    y, pullback = xpconv.vjp(ops.conv, x, w, b, residual=beside)
    lying = [np.asfortranarray(x), np.asfortranarray(w), np.repeat(b, 2)[::2], np.asfortranarray(beside)]
    same, pullback_too = xpconv.vjp(ops.conv, *lying[:3], residual=lying[3])
    for one, other in zip((y, *pullback(y)), (same, *pullback_too(np.asfortranarray(same))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_infinite_parts_spoil_no_others_and_warn_of_nothing():
    x, w = np.full((1, 4, 4, 1), 1 + 1j, "complex64"), np.ones((1, 1, 1, 3), "complex64")
    w[..., 1] = np.inf  # whose product with 1j has a part that is nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, pullback = xpconv.vjp(ops.conv, x, w)
        dy = np.zeros_like(y)
        dy[0, 0, 0, 2] = complex(np.inf, 1)
        dw = pullback(dy)[1]
    np.testing.assert_array_equal(y[0, 0, 0], [1 + 1j, complex(np.inf, np.inf), 1 + 1j])
    np.testing.assert_array_equal(dw.ravel(), [0, 0, complex(np.inf, -np.inf)])


def test_what_is_left_to_portable_is_told_and_done():
    with (
        xpconv.use_engine("numba"),
        pytest.raises(xpconv.EngineError, match="borders of complex numbers only where real and imaginary"),
    ):
        ops.pad(numbers(1, 3, 3, 2), 1, value=1.0)
    x, w = (array.astype("clongdouble") for array in (numbers(1, 4, 4, 2), numbers(3, 3, 2, 4)))
    assert ops.conv(x, w).dtype == ops.pad(x, 1).dtype == x.dtype  # longer than any kernel's where the machine has such


def test_replays_read_complex_weights_anew():
    layers = nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.ConvTranspose2d(4, 2, 2, stride=2)
    net = nn.Sequential(*layers).to(dtype="complex64").initialize(seed=0)
    predictor, x = train.Predictor(net), numbers(1, 6, 6, 2)
    for _ in range(4):
        predictor(x)
    assert predictor.replays
    net[0].weight.assign(net[0].weight.value * 1j)
    np.testing.assert_array_equal(predictor(x), net(x))


def test_a_layer_keeps_what_is_packed_of_its_complex_weights():
    layer, x = nn.Conv2d(8, 8, 3).to(dtype="complex64").initialize(seed=0), numbers(1, 6, 6, 8)
    y, pullback = layer.vjp(x)
    pullback(y)
    (matrix,) = (kept for kept in layer.weight.packed.values() if hasattr(kept, "packed"))
    before = dict(matrix.packed)
    assert before
    np.testing.assert_array_equal(layer(x), y)
    assert all(matrix.packed[key] is made for key, made in before.items())
    layer.weight.assign(layer.weight.value)
    assert not layer.weight.packed


def test_reasons_told_of_real_arrays_are_the_engines_own():
    depthwise = np.zeros((1, 4, 4, 2), "float32"), np.zeros((3, 3, 1, 4), "float32")
    assert "several outputs of a channel" in xpconv.explain(ops.conv, *depthwise, groups=2)["numba"]
    empty = numbers(0, 4, 4, 2), numbers(3, 3, 2, 4)
    assert ops.conv(*empty).shape == (0, 2, 2, 4)
