"""Properties over generated arguments: the portable engine against the loops, within the wider constant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xpconv
from xpconv import ops
from xpconv.parity.bounds import PROPERTY, Truth, error_in_bounds
from xpconv.parity.conv import CONV, CONV_TRANSPOSE

small = st.integers(1, 3)


def each(draw, rank, values):
    """One drawn value for each spatial axis."""
    return tuple(draw(values) for _ in range(rank))


def drawn_arrays(draw, x, w, b):
    """float32 arrays of the shapes x, w and b, with a batch before x."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "constant", "positive"]))

    def data(shape):
        x = rng.standard_normal(shape)
        return {"normal": x, "constant": np.full(shape, 0.3), "positive": np.abs(x)}[kind].astype("float32")

    return {"x": data((draw(st.integers(0, 2)), *x)), "w": data(w), "b": data(b)}


@st.composite
def convolutions(draw):
    """Arrays and options of a convolution of any rank that fits."""
    rank, groups, multiple, per_group = (draw(small) for _ in range(4))
    kernel, stride, dilation = (each(draw, rank, small) for _ in range(3))
    padding = each(draw, rank, st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [d * (k - 1) + 1 - sum(p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(max(n, 1) + draw(st.integers(0, 3)) for n in least)
    out = groups * multiple
    arrays = drawn_arrays(draw, (*size, per_group * groups), (*kernel, per_group, out), (out,))
    return arrays, {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}


@st.composite
def transposed_convolutions(draw):
    """Arrays and options of a transposed convolution of any rank that leaves something of its output."""
    rank, groups, multiple, per_group = (draw(small) for _ in range(4))
    kernel, stride, dilation = (each(draw, rank, small) for _ in range(3))
    padding = each(draw, rank, st.tuples(st.integers(0, 2), st.integers(0, 2)))
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    size = []
    for k, s, d, cut, extra in zip(kernel, stride, dilation, padding, more, strict=True):
        missing = sum(cut) - d * (k - 1) - extra  # cells that windows after the first must bring
        size.append(1 + max(0, -(-missing // s)) + draw(st.integers(0, 2)))
    channels, out = groups * multiple, per_group * groups
    arrays = drawn_arrays(draw, (*size, channels), (*kernel, per_group, channels), (out,))
    options = {"stride": stride, "dilation": dilation, "padding": padding, "output_padding": more, "groups": groups}
    return arrays, options


def every_result(engine, op, arrays, options):
    """y, the dy that was pulled back, and the gradients."""
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(op, **arrays, **options)
        dy = np.random.default_rng(0).standard_normal(y.shape).astype("float32").astype(y.dtype)
        return y, dy, pullback(dy)


def holds_its_bound(case, arrays, options):
    """y and every gradient of the portable engine lie as near to the loops as the case's own scales say."""
    wide = {name: x.astype("float64") for name, x in arrays.items()}
    true, dy, true_grads = every_result("reference", case.op, wide, options)
    scales = case.scales(Truth(case.op, wide, options, "float32", true, dy, true_grads))
    got, _, grads = every_result("portable", case.op, arrays, options)
    for mine, theirs, scale in zip((got, *grads), (true, *true_grads), (scales.y, *scales.grads), strict=True):
        assert mine.dtype == "float32"
        assert mine.shape == theirs.shape
        assert error_in_bounds(mine.astype("float64"), theirs, scale, "float32", PROPERTY) <= 1


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_convolution_agrees_with_the_loops(call):
    holds_its_bound(CONV, *call)


@settings(max_examples=100, deadline=None)
@given(transposed_convolutions())
def test_transposed_convolution_agrees_with_the_loops(call):
    holds_its_bound(CONV_TRANSPOSE, *call)


@st.composite
def pools(draw, dilations=small):
    """An input and the options of a pool that fits; values with ties, nan and infinities among them."""
    rank = draw(small)
    kernel, dilation = each(draw, rank, small), each(draw, rank, dilations)
    options = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.tuples(*[small] * rank)),
        "dilation": dilation,
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    size = tuple(d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True))
    values = draw(st.sampled_from([[0.0, 1.0], [-1.0, -np.inf, 2.0], [np.nan, 1.0, -3.0], [np.inf, np.nan, -np.inf]]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.choice(values, (draw(st.integers(0, 2)), *size, 2)), options


@settings(max_examples=150, deadline=None)
@given(pools(), st.sampled_from(["first", "all"]))
def test_max_pool_selects_exactly_what_the_loops_select(call, ties):
    x, options = call
    answers = []
    for engine in ("portable", "reference"):
        with xpconv.use_engine(engine):
            (y, indices), pullback = xpconv.vjp(ops.max_pool, x, **options, ties=ties, return_indices=True)
            dy = np.arange(1.0, y.size + 1).reshape(y.shape)
            answers.append((y, indices, *pullback(dy)))
    for mine, theirs in zip(*answers, strict=True):
        assert np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f")


@settings(max_examples=100, deadline=None)
@given(pools(dilations=st.just(1)), st.booleans())
def test_average_pool_agrees_with_the_loops(call, count):
    x, options = call
    x = np.nan_to_num(x, posinf=5.0, neginf=-5.0)
    options = {name: value for name, value in options.items() if name != "dilation"} | {"count_include_pad": count}
    (mine, _, (mine_dx,)), (theirs, _, (theirs_dx,)) = (
        every_result(engine, ops.avg_pool, {"x": x}, options) for engine in ("portable", "reference")
    )
    np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(mine_dx, theirs_dx, rtol=1e-13, atol=1e-13)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["float16", "float32", "float64"]))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("relu", "relu6", "silu", "sigmoid", "tanh", "softplus", "hard_swish")),
        *((name, {}) for name in ("leaky_relu", "elu", "hard_sigmoid", "gelu")),
        ("gelu", {"approximate": "tanh"}),
    ],
)
def test_activations_are_finite_wherever_their_input_is(name, options, data, dtype):
    """Values and gradients, without a warning, to the ends of the dtype's range."""
    width = np.finfo(dtype).bits
    x = np.array(data.draw(st.lists(st.floats(width=width, allow_nan=False, allow_infinity=False), min_size=4)), dtype)
    y, pullback = xpconv.vjp(getattr(ops, name), x, **options)
    (dx,) = pullback(np.full_like(y, np.finfo(dtype).max / 2))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
