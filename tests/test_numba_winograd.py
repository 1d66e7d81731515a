"""Winograd's forms: that the tables are right, and that kernels made of them answer within the bound, in 1-D to 3-D."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import nn, ops
from xpconv.parity.bounds import NAMED, error_in_bounds

pytestmark = pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here")

FAST = 12.0  # the bound's constant for large tiles
NAMES = ("conv_fprop", "conv_dgrad", "conv_wgrad")
CALLS = {  # x, w, options, what is said of y, dx and dw
    "stride 2, odd": ((2, 11, 13, 32), (3, 3, 32, 32), {"stride": 2, "padding": 1}, "2×2, 3×3 /2", "2×2, 2×2"),
    "stride 2, even": ((2, 12, 10, 48), (3, 3, 48, 32), {"stride": 2, "padding": ((1, 0), (2, 1))}, "2×2, 3×3 /2", ""),
    "stride 2 across": ((1, 9, 14, 32), (3, 3, 32, 48), {"stride": (1, 2)}, "2×2, 3×3 /1×2", "2×2, 3×2"),
    "stride 2, 4×4": ((2, 9, 10, 32), (4, 4, 32, 32), {"stride": 2, "padding": 1}, "2×2, 4×4 /2", "2×2, 2×2"),
    "2×2": ((2, 7, 6, 32), (2, 2, 32, 32), {}, "2×2, 2×2", "2×2, 2×2"),
    "5×5": ((1, 9, 8, 32), (5, 5, 32, 32), {"padding": 2}, "2×2, 5×5", "2×2, 5×5"),
    "3×1": ((2, 8, 5, 32), (3, 1, 32, 32), {"padding": (1, 0)}, "2×1, 3×1", "2×1, 3×1"),
    "1-D": ((3, 37, 32), (3, 32, 64), {"padding": "causal"}, "2, 3", "2, 3"),
    "1-D, 9 taps": ((2, 41, 32), (9, 32, 32), {"padding": 4}, "2, 9", "2, 9"),
    "3-D": ((2, 5, 7, 6, 32), (3, 3, 3, 32, 32), {"padding": 1}, "1×2×2, 3×3×3", "1×2×2, 3×3×3"),
    "3-D, one slice": ((1, 1, 7, 8, 32), (1, 3, 3, 32, 32), {"padding": (0, 1, 1)}, "1×2×2, 1×3×3", "1×2×2, 1×3×3"),
    "3-D, stride 2 across": ((1, 4, 8, 9, 32), (2, 3, 3, 32, 32), {"stride": (2, 1, 2)}, "1×2×2, 2×3×3 /2×1×2", ""),
}


@pytest.fixture(autouse=True)
def compiled():
    with xpconv.use_engine("numba"):
        yield


@pytest.fixture
def tiled(monkeypatch):
    """Let all be done by Winograd's algorithm that can be."""
    from xpconv.engines.numba import choice

    def forget():
        for cached in (choice.output_step, choice.input_steps, choice.weight_step, choice.of_pass, choice.of_sum):
            cached.cache_clear()

    monkeypatch.setattr(choice, "_cheapest", lambda options, room: options[-1])
    forget()
    yield
    forget()


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def told(x, w, **options):
    """What `explain` says of each direction."""
    text = xpconv.explain(ops.conv, x, w, **options)["numba"]
    starts = [text.index(name) for name in NAMES]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def all_of(x, w, dy, **options):
    y, pullback = xpconv.vjp(ops.conv, x, w, **options)
    return (y, *pullback(dy))


AXES = [(1, 3, 2), (2, 1, 1), (2, 2, 1), (2, 3, 1), (4, 3, 1), (2, 3, 2), (2, 4, 1), (2, 9, 1), (2, 7, 2), (2, 8, 3)]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_a_form_is_the_sum_that_it_stands_for(axis):
    from xpconv.engines.numba.forms import Axis

    outputs, taps, step = axis
    axis = Axis(*axis)
    x, g = draw(axis.cells, dtype="float64"), draw(taps, dtype="float64")
    y = sum(np.array(t.outputs) * (np.array(t.cells) @ x) * (np.array(t.taps) @ g) for t in axis.terms())
    np.testing.assert_allclose(y, [x[i * step : i * step + taps] @ g for i in range(outputs)], atol=1e-13)


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_an_output_hears_of_no_cell_outside_its_window(axis):
    from xpconv.engines.numba.forms import Axis

    if axis[0] == 4:
        pytest.skip("large tiles are for fast alone, which does not promise it")
    for output, term in itertools.product(range(axis[0]), Axis(*axis).terms()):
        window = range(output * axis[2], output * axis[2] + axis[1])
        assert not term.outputs[output] or set(np.flatnonzero(term.cells)) <= set(window)


IMAGES = [
    ((1, 3, 1), (2, 3, 1), (2, 5, 1)),
    ((1, 3, 1), (1, 2, 1), (2, 9, 2)),
    ((2, 3, 2), (2, 3, 1), (2, 5, 1)),
]


@pytest.mark.parametrize("axes", IMAGES, ids=str)
def test_terms_are_numbered_plane_by_plane(axes):
    from xpconv.engines.numba.forms import Axis, Form

    form = Form(tuple(Axis(*axis) for axis in axes))
    assert Form.parse(form.code) == form
    assert sorted(form.numbers) == list(range(form.terms))
    assert form.terms == math.prod(len(axis.terms()) for axis in form.axes)
    terms = list(itertools.product(*(axis.terms() for axis in form.axes)))
    for q, (first, last) in enumerate(itertools.pairwise(form.starts)):
        columns = {tuple(t.outputs for t in terms[form.numbers.index(n)]) for n in range(first, last)}
        assert len(columns) == 1
        firsts = tuple(int(np.flatnonzero(outputs)[0]) for outputs in columns.pop())
        assert firsts == form.first_outputs[q]
        assert form.plane_of[first:last] == (q,) * (last - first)


def test_only_neighbours_of_whole_vectors_have_a_form(tiled):
    nine = (3, 3, 32, 32)
    for x, w, options in (
        ((2, 12, 12, 32), nine, {"dilation": 2}),
        ((2, 12, 12, 33), (3, 3, 33, 32), {}),
        ((2, 12, 12, 32), (3, 3, 32, 33), {}),
        ((2, 12, 12, 64), (3, 3, 32, 64), {"groups": 2}),
        ((2, 12, 12, 32), nine, {"stride": 3}),
        ((2, 12, 12, 32), (1, 1, 32, 32), {}),
        ((2, 12, 32), (2, 32, 32), {"stride": 2}),
    ):
        assert "Winograd" not in told(draw(*x), draw(*w), **options)[0]


@pytest.mark.parametrize("fill", [None, 0.7, 0.1], ids=["random", "0.7", "0.1"])
@pytest.mark.parametrize("call", CALLS)
def test_every_form_is_within_the_bound(tiled, call, fill):
    x, w, options, of_y, of_dx = CALLS[call]
    x, w = (draw(*shape) if fill is None else np.full(shape, fill, "float32") for shape in (x, w))
    texts = told(x, w, **options)
    assert all("Winograd F(" in text for text in texts)
    assert f"Winograd F({of_y})" in texts[0]
    assert f"Winograd F({of_y})" in texts[2]
    assert f"Winograd F({of_dx}" in texts[1]
    shape = ops.conv(x, w, **options).shape
    dy = draw(*shape, seed=9) if fill is None else np.full(shape, fill, "float32")
    mine = all_of(x, w, dy, **options)
    exact = [a.astype("float64") for a in (x, w, dy)]
    with xpconv.use_engine("portable"):
        right, sizes = all_of(*exact, **options), all_of(*map(np.abs, exact), **options)
    spatial = tuple(range(1, x.ndim - 1))
    for a, true, size, terms, axes in zip(
        mine,
        right,
        sizes,
        (math.prod(w.shape[:-1]), math.prod(w.shape[:-2]) * w.shape[-1], math.prod(shape[:-1])),
        (spatial, spatial, tuple(range(w.ndim - 1))),
        strict=True,
    ):
        scale = np.sqrt(terms) * size.max(axis=axes, keepdims=True)
        assert error_in_bounds(a, true, scale, "float32", NAMED) <= 1


@pytest.mark.parametrize(("call", "name"), [("1-D", "4, 3"), ("3×1", "4×1, 3×1"), ("3-D, one slice", "1×4×4, 1×3×3")])
def test_large_tiles_of_every_rank_are_within_the_bound_of_fast(tiled, call, name):
    x, w, options, *_ = CALLS[call]
    x, w = draw(*x), draw(*w)
    with xpconv.precision("fast"):
        assert f"Winograd F({name})" in told(x, w, **options)[0]
        y = ops.conv(x, w, **options)
    exact = [a.astype("float64") for a in (x, w)]
    with xpconv.use_engine("portable"):
        right, size = ops.conv(*exact, **options), ops.conv(*map(np.abs, exact), **options)
    scale = np.sqrt(math.prod(w.shape[:-1])) * size.max(axis=tuple(range(1, x.ndim - 1)), keepdims=True)
    assert error_in_bounds(y, right, scale, "float32", FAST) <= 1


@pytest.mark.parametrize("call", ["stride 2, odd", "1-D, 9 taps", "3-D"])
def test_every_rank_finishes_in_float64(tiled, call):
    x, w, options, *_ = CALLS[call]
    x, w, b = draw(*x, dtype="float64"), draw(*w, dtype="float64"), draw(w[-1], dtype="float64")
    residual = draw(*ops.conv(x, w, **options).shape, dtype="float64")
    for activation in (None, "silu"):
        y = ops.conv(x, w, b, residual=residual, activation=activation, **options)
        with xpconv.use_engine("portable"):
            right = ops.conv(x, w, b, residual=residual, activation=activation, **options)
        np.testing.assert_allclose(y, right, rtol=1e-11, atol=1e-11)
    dy = residual
    mine = all_of(x, w, dy, **options)
    with xpconv.use_engine("portable"):
        for a, right in zip(mine, all_of(x, w, dy, **options), strict=True):
            np.testing.assert_allclose(a, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("call", CALLS)
def test_a_bad_cell_spoils_its_own_windows_alone(tiled, call, bad):
    x, w, options, *_ = CALLS[call]
    x, w = draw(*x), draw(*w)
    size = x.shape[1:-1]
    for cell in itertools.product(*({0, n // 2, n // 2 + 1, n - 1} & set(range(n)) for n in size)):
        broken = np.array(x)
        broken[(0, *cell, 5)] = bad
        mark = np.zeros((1, *size, 1))
        mark[(0, *cell, 0)] = 1
        with xpconv.use_engine("portable"):
            seen = ops.conv(mark, np.ones((*w.shape[:-2], 1, 1)), **options)[0, ..., 0] > 0
        spoilt = ~np.isfinite(ops.conv(broken, w, **options))
        assert np.array_equal(spoilt[0].all(axis=-1), seen)
        assert np.array_equal(spoilt[0].any(axis=-1), seen)
        assert not spoilt[1:].any()


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_gradient_spoils_its_own_window_alone(tiled, call):
    x, w, options, *_ = CALLS[call]
    x, w = draw(*x), draw(*w)
    y, pullback = xpconv.vjp(ops.conv, x, w, needs=(True, False), **options)
    cell = tuple(n // 2 for n in y.shape[1:-1])
    dy, mark = draw(*y.shape, seed=9), np.zeros((1, *y.shape[1:-1], 1))
    dy[(0, *cell, 5)], mark[(0, *cell, 0)] = np.inf, 1
    with xpconv.use_engine("portable"):
        one = np.zeros((1, *x.shape[1:-1], 1)), np.ones((*w.shape[:-2], 1, 1))
        seen = xpconv.vjp(ops.conv, *one, needs=(True, False), **options)[1](mark)[0][0, ..., 0] > 0
    spoilt = ~np.isfinite(pullback(dy)[0])
    assert np.array_equal(spoilt[0].all(axis=-1), seen)
    assert np.array_equal(spoilt[0].any(axis=-1), seen)
    assert not spoilt[1:].any()


@pytest.mark.parametrize("call", ["stride 2, odd", "1-D, 9 taps", "3-D"])
def test_any_number_of_threads_gives_the_same_bits(tiled, call):
    x, w, options, *_ = CALLS[call]
    x, w = draw(*x), draw(*w)
    dy, answers = draw(*ops.conv(x, w, **options).shape, seed=9), []
    for threads in (1, 2, 5):
        with xpconv.set_num_threads(threads):
            answers.append(all_of(x, w, dy, **options))
    for other in answers[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(answers[0], other, strict=True))


@pytest.mark.parametrize("call", ["stride 2, odd", "5×5", "3-D"])
def test_tiles_that_are_fetched_ahead_give_the_same_bits(tiled, monkeypatch, call):
    """The last of them lie beyond the arrays, and between images there are others."""
    from xpconv.engines.numba import winograd

    x_shape, w_shape, options, _, _ = CALLS[call]
    x, w = draw(4 * x_shape[0], *x_shape[1:])[::2], draw(*w_shape)
    dy = draw(*ops.conv(x, w, **options).shape)
    near = all_of(x, w, dy, **options)
    monkeypatch.setattr(winograd, "_NEAR", 0)
    for here, there in zip(all_of(x, w, dy, **options), near, strict=True):
        np.testing.assert_array_equal(here, there)


def test_each_pass_of_a_parameter_keeps_its_own_weights(tiled):
    layer = nn.Conv2d(32, 32, 3, stride=2, padding=1).initialize()
    x, w = draw(2, 11, 12, 32), np.array(layer.weight.value)
    for _ in range(2):
        y, pullback = layer.vjp(x)
        dx = pullback(y)
    plain, pull = xpconv.vjp(ops.conv, x, w, np.array(layer.bias.value), stride=2, padding=1)
    np.testing.assert_allclose(y, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, pull(y)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("limit", ["400K", "40K"])
@pytest.mark.parametrize("call", ["stride 2, odd", "1-D, 9 taps", "3-D"])
def test_little_scratch_gives_the_right_answer(call, limit):
    x, w, options, *_ = CALLS[call]
    x, w = draw(*x), draw(*w)
    dy = draw(*ops.conv(x, w, **options).shape, seed=9)
    wide = all_of(x, w, dy, **options)
    with xpconv.workspace_limit(limit):
        for mine, right in zip(all_of(x, w, dy, **options), wide, strict=True):
            np.testing.assert_allclose(mine, right, rtol=2e-4, atol=2e-4 * np.abs(right).max())
