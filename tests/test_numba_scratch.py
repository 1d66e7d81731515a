"""Scratch and packed weights of compiled convolution: within the limit, right where it is little, packed once."""

from __future__ import annotations

import numpy as np
import pytest
from numba_conv import CALLS, algorithms, compiled_alone, direct_only, draw, exact, on

import xpconv
from xpconv import nn, ops, train

pytestmark = compiled_alone


@pytest.mark.parametrize("limit", ["256K", "40K", "1K"])
@pytest.mark.parametrize("call", CALLS)
def test_little_scratch_gives_the_right_answer(call, limit):
    x, w, options = CALLS[call]
    x, w = draw(*x), draw(*w)
    wide = on("numba", x, w, **options)
    with xpconv.workspace_limit(limit), xpconv.use_engine("numba", "portable"):
        y, pullback = xpconv.vjp(ops.conv, x, w, **options)
        for mine, right in zip((y, *pullback(draw(*y.shape, seed=9))), wide, strict=True):
            np.testing.assert_allclose(mine, right, rtol=2e-4, atol=2e-4 * np.abs(right).max())


def test_scratch_and_packed_weights_stay_within_the_limit(monkeypatch):
    from xpconv.engines.numba import scratch

    taken = []
    take = scratch._take
    monkeypatch.setattr(scratch, "_take", lambda nbytes: taken.append(nbytes) or take(nbytes))
    x, w = draw(2, 24, 24, 64), draw(3, 3, 64, 64)
    packed = {"Winograd": w.nbytes * 16 // 9, "direct s": 0}
    on("numba", x, w, padding=1)
    assert max(taken) > 2**20
    algorithm = []
    for limit in (2**21, 2**19, 2**18):
        with xpconv.workspace_limit(limit):
            algorithm.append(algorithms(x, w, padding=1)[0].partition("(")[2][:8])
            taken.clear()
            y, pullback = xpconv.vjp(ops.conv, x, w, padding=1)
            assert max(taken) + packed[algorithm[-1]] <= limit
            taken.clear()
            pullback(y)
            assert max(taken) <= limit
    assert algorithm == ["Winograd", "Winograd", "direct s"]


def test_weights_too_large_to_pack_are_turned_in_tasks_or_declined():
    x, w = draw(2, 24, 24, 64), draw(3, 3, 64, 64)
    assert "Winograd" in algorithms(x, w, padding=1)[1]
    with xpconv.workspace_limit(w.nbytes // 2):
        assert "direct sum" in algorithms(x, w, padding=1)[1]
    depthwise = draw(3, 3, 1, 64)
    with xpconv.workspace_limit(depthwise.nbytes - 1):
        text = xpconv.explain(ops.conv, x, depthwise, groups=64)["numba"]
    assert "would pack 2304 bytes of depthwise weights, more than workspace_limit allows" in text


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_turned_in_tasks_leave_bias_and_residual_right(stride):
    x, w, b = draw(2, 12, 12, 64), draw(3, 3, 64, 64), draw(64, seed=1)
    options = {"stride": stride, "padding": "same"}
    side = draw(2, 12 * stride, 12 * stride, 64, seed=2)
    with xpconv.workspace_limit(w.nbytes // 2):
        y = ops.conv_transpose(x, w, b, residual=side, **options)
    right = ops.conv_transpose(*(a.astype("float64") for a in (x, w, b)), **options) + side
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shapes", [((2, 9, 9, 200), (3, 3, 200, 140)), ((3, 12, 11, 40), (5, 3, 40, 6))])
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_turned_in_parts_and_at_once_give_the_same(shapes, stride, monkeypatch):
    direct_only(monkeypatch)
    x, w = draw(*shapes[0]), draw(*shapes[1])
    answers = []
    for threads, limit in ((1, "256M"), (3, "256M"), (2, "1K")):
        with xpconv.set_num_threads(threads), xpconv.workspace_limit(limit):
            answers.append(on("numba", x, w, padding=1, stride=stride)[1])
    np.testing.assert_allclose(answers[0], exact(x, w, padding=1, stride=stride)[1], rtol=1e-4, atol=1e-3)
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_a_linear_layer_gives_the_same_in_little_scratch():
    x, w = draw(3, 70), draw(70, 40)
    y, pullback = xpconv.vjp(ops.linear, x, w)
    dx, dw = pullback(y)
    with xpconv.workspace_limit(4000):
        part_dx, part_dw = xpconv.vjp(ops.linear, x, w)[1](y)
    assert np.array_equal(dx, part_dx)
    assert np.array_equal(dw, part_dw)


def test_weights_are_transformed_once_for_each_version(monkeypatch):
    from xpconv.engines.numba import winograd

    made = []
    weigh = winograd.weigh
    monkeypatch.setattr(winograd, "weigh", lambda *args: made.append(args) or weigh(*args))
    layer = nn.Conv2d(32, 32, 3, padding=1).initialize()
    x = draw(2, 12, 12, 32)
    before = layer(x)
    assert np.array_equal(layer(x), before)
    assert len(made) == 1
    y, pullback = layer.vjp(x)
    pullback(y)
    pullback(y)
    assert len(made) == 2  # one for the input gradient
    train.SGD(0.1).step(layer.parameters())
    after = layer(x)
    assert len(made) == 3
    w, b = (np.array(parameter.value) for parameter in (layer.weight, layer.bias))
    np.testing.assert_allclose(after, ops.conv(x, w, b, padding=1), rtol=1e-5, atol=1e-5)
    assert not np.allclose(before, after)
    assert len(made) == 4  # an array that is nobody's parameter
