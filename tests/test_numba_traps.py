"""What the compiled engine could trip over, and no law would show: memory that goes too early, planes, kept sums."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import xpconv
from xpconv import nn, ops
from xpconv.dispatch import engine_primitives
from xpconv.ops.conv_gradients import Epilogue
from xpconv.window import conv_window

pytest.importorskip("numba")
RNG = np.random.default_rng(0)


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


def on(engine, op, *arrays, dy, **options):
    with xpconv.use_engine(*engine):
        y, pullback = xpconv.vjp(op, *arrays, **options)
        return y, *pullback(dy)


COMPILED, PORTABLE = ("numba", "portable"), ("portable",)


def test_a_large_dy_with_gaps_lives_as_long_as_it_is_read():
    x, w = normal(4, 96, 96, 3), normal(3, 3, 3, 16)
    dy = normal(4, 192, 192, 16)[:, ::2, ::-2]
    for _ in range(3):
        (dx,) = on(COMPILED, ops.conv, x, w, padding=1, needs=(True, False), dy=dy)[1:2]
        close(dx, on(PORTABLE, ops.conv, x, w, padding=1, needs=(True, False), dy=dy.copy())[1])


@pytest.mark.parametrize("depth", [0, 1], ids=["no padding", "depth padded"])
def test_planes_of_a_volume_are_not_taken_for_an_image(depth):
    x, w = normal(1, 4, 12, 12, 48), normal(1, 3, 3, 48, 48)
    options = {"padding": (depth, 1, 1)}
    y = ops.conv(x, w, **options)
    dy = normal(*y.shape)
    for got, expected in zip(
        on(COMPILED, ops.conv, x, w, dy=dy, **options), on(PORTABLE, ops.conv, x, w, dy=dy, **options), strict=True
    ):
        close(got, expected)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (3, 3, 48, 48), (3, 3, 1, 9)], ids=["direct", "Winograd", "depthwise"])
def test_sums_are_kept_beside_any_activation(activation, shape):
    groups = shape[-1] if shape[-2] == 1 else 1
    x, w = normal(2, 12, 12, shape[-2] * groups), normal(*shape)
    window = conv_window("conv", (12, 12), (3, 3), 1, 1)
    answers = [
        engine_primitives(engine)["conv_fprop"].run(
            x, w, window=window, groups=groups, epilogue=Epilogue(None, None, activation, keep_sums=True)
        )
        for engine in ("numba", "portable")
    ]
    for got, expected in zip(*answers, strict=True):
        close(got, expected)


@pytest.mark.parametrize("channels", [1, 7, 16, 17, 32, 33, 48, 64, 80, 96, 130])
def test_every_width_of_tile_gives_all_its_channels(channels):
    x, w = normal(3, 5, 7, 16), normal(1, 1, 16, channels)
    y = ops.conv(x, w)
    dy = normal(*y.shape)
    for got, expected in zip(on(COMPILED, ops.conv, x, w, dy=dy), on(PORTABLE, ops.conv, x, w, dy=dy), strict=True):
        close(got, expected)


def test_a_copied_parameter_has_a_value_of_its_own():
    one = nn.Parameter(np.ones((1, 1, 2, 2), "float32"))
    other = copy.copy(one)
    one.assign(np.zeros((1, 1, 2, 2), "float32"))
    assert other.value.all()


def test_engines_agree_on_what_is_kept_of_an_activation():
    from xpconv.activations import FROM_OUTPUT
    from xpconv.engines.numba import activation as compiled
    from xpconv.engines.portable import activation as portable

    assert set(portable.FROM_OUTPUT) == set(FROM_OUTPUT)
    assert set(compiled.FROM_INPUT) == set(portable.FROM_INPUT)
