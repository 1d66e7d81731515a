"""Properties over generated arguments: the portable engine against the loops, within the wider constant."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import xpconv
from xpconv import ops
from xpconv.parity.bounds import PROPERTY, error_in_bounds

small = st.integers(1, 3)


@st.composite
def convolutions(draw):
    """Arrays and options of a convolution of any rank that fits."""
    rank, groups, multiple = draw(small), draw(small), draw(small)
    kernel = draw(st.tuples(*[small] * rank))
    options = {
        "stride": draw(st.tuples(*[small] * rank)),
        "dilation": draw(st.tuples(*[small] * rank)),
        "padding": draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)),
        "groups": groups,
    }
    least = [d * (k - 1) + 1 - sum(p) for k, d, p in zip(kernel, options["dilation"], options["padding"], strict=True)]
    size = tuple(max(n, 1) + draw(st.integers(0, 3)) for n in least)
    per_group = draw(small)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "constant", "positive"]))

    def data(*shape):
        x = rng.standard_normal(shape)
        return {"normal": x, "constant": np.full(shape, 0.3), "positive": np.abs(x)}[kind].astype("float32")

    x = data(draw(st.integers(0, 2)), *size, per_group * groups)
    return x, data(*kernel, per_group, groups * multiple), data(groups * multiple), options


def every_result(engine, op, arrays, options, seed=0):
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(op, *arrays, **options)
        dy = np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)
        return [y, *pullback(dy)]


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_convolution_agrees_with_the_loops(call):
    x, w, b, options = call
    wide = [a.astype("float64") for a in (x, w, b)]
    got = every_result("portable", ops.conv, (x, w, b), options)
    true = every_result("reference", ops.conv, wide, options)
    sizes = every_result("portable", ops.conv, [np.abs(a) for a in wide], options)
    sizes[1:] = [np.abs(s) + 1 for s in sizes[1:]]
    for mine, theirs, scale in zip(got, true, sizes, strict=True):
        terms = max(w.size, x.size, 1)
        largest = np.max(np.abs(scale), initial=0.0)
        assert error_in_bounds(mine, theirs, np.sqrt(terms) * largest, "float32", PROPERTY) <= 1


@st.composite
def pools(draw):
    """An input and the options of a pool that fits; values with ties, nan and infinities among them."""
    rank = draw(small)
    kernel = draw(st.tuples(*[small] * rank))
    options = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.tuples(*[small] * rank)),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    size = tuple(k + draw(st.integers(0, 4)) for k in kernel)
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
@given(pools(), st.booleans())
def test_average_pool_agrees_with_the_loops(call, count):
    x, options = call
    x = np.nan_to_num(x, posinf=5.0, neginf=-5.0)
    mine, theirs = (
        every_result(engine, ops.avg_pool, (x,), {**options, "count_include_pad": count})
        for engine in ("portable", "reference")
    )
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
