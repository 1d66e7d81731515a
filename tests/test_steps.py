"""The eight steps give the course's published numbers, its caches, and the same on every engine and backend."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import steps

ENGINES = ("reference", "portable")
close = {"rtol": 1e-7, "atol": 1e-8}  # the course prints 8 decimals

HPARAMETERS = {"stride": 2, "pad": 2}


@pytest.fixture(autouse=True, params=ENGINES)
def engine(request):
    with xpconv.use_engine(request.param):
        yield request.param


@pytest.fixture
def draw():
    return np.random.RandomState(1).randn  # what np.random.seed(1) starts


def forward(draw):
    A_prev, W, b = draw(10, 4, 4, 3), draw(2, 2, 3, 8), draw(1, 1, 1, 8)
    return A_prev, W, b, *steps.conv_forward(A_prev, W, b, HPARAMETERS)


def test_zero_pad(draw):
    x = draw(4, 3, 3, 2)
    padded = steps.zero_pad(x, 2)
    assert padded.shape == (4, 7, 7, 2)
    np.testing.assert_allclose(
        x[1, 1], [[0.90085595, -0.68372786], [-0.12289023, -0.93576943], [-0.26788808, 0.53035547]], **close
    )
    assert np.array_equal(padded[:, 2:5, 2:5], x)
    assert padded.sum() == pytest.approx(x.sum())
    assert not padded[1, 1].any()
    assert np.array_equal(steps.zero_pad(x, 0), x)


def test_conv_single_step(draw):
    a_slice_prev, W, b = draw(4, 4, 3), draw(4, 4, 3), draw(1, 1, 1)
    Z = steps.conv_single_step(a_slice_prev, W, b)
    assert type(Z) is np.float64
    assert pytest.approx(-6.99908945068, rel=1e-11) == Z


def test_the_bias_is_added_once(draw):
    a = draw(3, 3, 2)
    zero = np.zeros((3, 3, 2))
    assert steps.conv_single_step(a, zero, np.full((1, 1, 1), 0.25)) == 0.25


def test_conv_forward(draw):
    A_prev, W, b, Z, cache = forward(draw)
    assert Z.shape == (10, 4, 4, 8)
    assert Z.mean() == pytest.approx(0.048995203528855794, rel=1e-12)
    expected = [-0.61490741, -6.7439236, -2.55153897, 1.75698377, 3.56208902, 0.53036437, 5.18531798, 8.75898442]
    np.testing.assert_allclose(Z[3, 2, 1], expected, **close)
    assert cache[0] is A_prev
    assert cache[1] is W
    assert cache[2] is b
    assert cache[3] is HPARAMETERS
    np.testing.assert_allclose(cache[0][1][2][3], [-0.20075807, 0.18656139, 0.41005165], **close)


def test_conv_backward(draw):
    A_prev, W, b, Z, cache = forward(draw)
    dA, dW, db = steps.conv_backward(Z, cache)
    assert (dA.shape, dW.shape, db.shape) == (A_prev.shape, W.shape, b.shape)
    assert dA.mean() == pytest.approx(1.45243777754, rel=1e-11)
    assert dW.mean() == pytest.approx(1.72699145831, rel=1e-11)
    assert db.mean() == pytest.approx(7.83923256462, rel=1e-11)


def test_conv_backward_runs_no_forward(draw, monkeypatch):
    *_, Z, cache = forward(draw)

    def fail(*_):
        raise AssertionError("a forward convolution was run")

    monkeypatch.setattr(sys.modules["xpconv.ops.conv_gradients"], "_fprop", fail)
    steps.conv_backward(Z, cache)


def test_pool_forward(draw):
    A_prev = draw(2, 4, 4, 3)
    hparameters = {"stride": 2, "f": 3}
    A, cache = steps.pool_forward(A_prev, hparameters)
    np.testing.assert_allclose(
        A.reshape(2, 3), [[1.74481176, 0.86540763, 1.13376944], [1.13162939, 1.51981682, 2.18557541]], **close
    )
    assert cache[0] is A_prev
    assert cache[1] is hparameters
    A, _ = steps.pool_forward(A_prev, hparameters, mode="average")
    np.testing.assert_allclose(
        A.reshape(2, 3), [[0.02105773, -0.20328806, -0.40389855], [-0.22154621, 0.51716526, 0.48155844]], **close
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("max", [[0.0, 0.0], [5.05844394, -1.68282702], [0.0, 0.0]]),
        ("average", [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]]),
    ],
)
def test_pool_backward(draw, mode, expected):
    A_prev = draw(5, 5, 3, 2)
    _, cache = steps.pool_forward(A_prev, {"stride": 1, "f": 2}, mode=mode)
    dA = draw(5, 4, 2, 2)
    assert dA.mean() == pytest.approx(0.145713902729, rel=1e-11)
    np.testing.assert_allclose(steps.pool_backward(dA, cache, mode=mode)[1, 1], expected, **close)


def test_every_tied_maximum_gets_the_whole_gradient():
    A, cache = steps.pool_forward(np.ones((1, 2, 2, 1)), {"stride": 2, "f": 2})
    assert steps.pool_backward(np.full_like(A, 3.0), cache).ravel().tolist() == [3.0] * 4


def test_create_mask_from_window(draw):
    assert steps.create_mask_from_window(draw(2, 3)).tolist() == [[True, False, False], [False, False, False]]
    assert steps.create_mask_from_window(np.ones((2, 2))).all()


def test_distribute_value():
    assert steps.distribute_value(2, (2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    spread = steps.distribute_value(np.float32(3), (1, 2))
    assert spread.dtype == np.float32
    assert spread.tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("backend", ["array_api_strict:device1", "torch", "cupy"])
def test_every_backend_gives_the_same(draw, backend):
    if missing(backend):
        pytest.skip(missing(backend))
    A_prev, W, b = draw(2, 4, 4, 3), draw(2, 2, 3, 8), draw(1, 1, 1, 8)
    host = everything(A_prev, W, b)
    with xpconv.use_backend(backend):
        there = everything(*(xpconv.asarray(x) for x in (A_prev, W, b)))
        assert all(type(x) is type(there[0]) for x in there)
    for mine, theirs in zip(host, there, strict=True):
        np.testing.assert_allclose(xpconv.to_numpy(theirs), mine, rtol=1e-12, atol=1e-12)


def everything(A_prev, W, b):
    Z, cache = steps.conv_forward(A_prev, W, b, HPARAMETERS)
    A, pooled = steps.pool_forward(Z, {"stride": 1, "f": 2})
    dZ = steps.pool_backward(A, pooled)
    padded = steps.zero_pad(A_prev, 1)
    return [Z, A, dZ, padded, *steps.conv_backward(dZ, cache), steps.distribute_value(Z[0, 0, 0, 0], (2, 2))]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: steps.conv_forward(np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1)), np.ones((1, 1, 1, 1)), {"pad": 0}),
            "stride",
        ),
        (lambda: steps.pool_forward(np.ones((1, 4, 4, 1)), {"f": 2, "stride": 2}, mode="median"), "median"),
        (
            lambda: steps.conv_backward(
                np.ones((1, 9, 9, 1)),
                (np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1)), np.ones((1, 1, 1, 1)), {"stride": 1, "pad": 0}),
            ),
            "shape of Z",
        ),
        (
            lambda: steps.conv_single_step(np.ones((3, 3, 2)), np.ones((2, 2, 2)), np.ones((1, 1, 1))),
            "the same shape",
        ),
        (
            lambda: steps.pool_backward(np.ones((1, 9, 9, 1)), (np.ones((1, 4, 4, 1)), {"stride": 2, "f": 2})),
            "dA must have the shape of A",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("mode", ["max", "average"])
def test_integer_images_have_no_gradient(mode):
    cache = (np.ones((1, 4, 4, 1), int), {"stride": 2, "f": 2})
    with pytest.raises(TypeError, match="cast it"):
        steps.pool_backward(np.ones((1, 2, 2, 1), int), cache, mode=mode)
