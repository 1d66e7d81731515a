"""The laws: written once, held by every case on every target."""

from __future__ import annotations

import numpy as np
import pytest
from targets import TARGETS, absent, calls, dtypes, require

import xpconv
from xpconv import backend, ops
from xpconv.dispatch import registered
from xpconv.kinds import is_inexact
from xpconv.parity import CASES, Case, Sample, Target, measure, serves
from xpconv.parity.sample import FILLS

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero", "ignore:overflow")

HOST = [t for t in TARGETS if t.backend == "numpy" and not t.readonly]
NAMES = ("target", "case", "sample")
on_targets = pytest.mark.parametrize(NAMES, calls())
on_host = pytest.mark.parametrize(NAMES, calls(HOST))


def make(target: Target, x: np.ndarray | None):
    """A host array on the target, write-protected where the target says so."""
    if x is None:
        return None
    made = backend.get(target.backend).asarray(np.array(x))
    if getattr(target, "readonly", False):
        made.flags.writeable = False
    return made


def call(case: Case, sample: Sample, target: Target, arrays: dict, needs=None):
    """Result, dy and pullback of a call on arrays that are already on the target."""
    require(target)
    with xpconv.use_engine(*target.chain):
        y, pullback = xpconv.vjp(case.op, **arrays, **sample.options, needs=needs)
    first = y[0] if isinstance(y, tuple) else y
    rng = np.random.default_rng(7)
    dy = rng.standard_normal(tuple(first.shape))
    dtype = str(first.dtype).rsplit(".", 1)[-1]
    dtype = dtype if dtype.startswith(("float", "complex", "int", "uint", "bool")) else "float32"
    return first, make(target, np.asarray(dy, dtype=dtype)), pullback


def hosts(grads) -> list:
    return [None if g is None else xpconv.to_numpy(g) for g in grads]


def same(left, right) -> bool:
    return all(
        (a is None and b is None) or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
        for a, b in zip(hosts(left), hosts(right), strict=True)
    )


@on_targets
def test_answers_lie_within_the_bound(target, case, sample):
    require(target)
    for dtype in dtypes(target):
        if not serves(case, sample, target, dtype):
            continue
        # The truth is a running sum in float64, which constant data make no better than an engine's own; and
        # bfloat16 is summed as float16 is.
        for fill in FILLS if sample.fills and dtype in ("float32", "float16") else FILLS[:1]:
            for name, error in measure(case, sample, target, dtype, fill).items():
                assert error <= 1, f"{name} in {dtype}, {fill} data: {error:.3g} times the bound"


@on_targets
def test_namespace_device_dtype_shape_and_inputs_are_kept(target, case, sample):
    require(target)
    arrays = {name: make(target, x) for name, x in sample.draw("random", "float32").items()}
    before = hosts(arrays.values())
    y, dy, pullback = call(case, sample, target, arrays)
    dy_before = xpconv.to_numpy(dy).copy()
    grads = pullback(dy)
    anchor = next(x for x in arrays.values() if x is not None)
    for result in (y, *(g for g in grads if g is not None)):
        assert type(result) is type(anchor)
        assert result.device == anchor.device
    for x, gradient in zip(arrays.values(), grads, strict=False):
        if x is None or not is_inexact(x):
            assert gradient is None
        else:
            assert (gradient.shape, gradient.dtype) == (x.shape, x.dtype)
    if is_inexact(anchor):
        assert y.dtype == anchor.dtype
    assert same(before, arrays.values()), "the call wrote into an input"
    assert np.array_equal(dy_before, xpconv.to_numpy(dy)), "the pullback wrote into dy"


@on_host
def test_strided_views_give_the_same(target, case, sample):
    drawn = sample.draw("random", "float32")
    y, dy, pullback = call(case, sample, target, drawn)
    views = {name: x if x is None else strided(x) for name, x in drawn.items()}
    view_y, _, view_pullback = call(case, sample, target, views)
    scale = 1e-5 * (1 + np.abs(y).max(initial=0)) if y.dtype.kind in "fc" else 0
    np.testing.assert_allclose(view_y, y, rtol=1e-5, atol=scale)
    for plain, view in zip(pullback(dy), view_pullback(strided(dy)), strict=True):
        if plain is not None:
            np.testing.assert_allclose(view, plain, rtol=1e-4, atol=1e-5 * (1 + np.abs(plain).max(initial=0)))


def strided(x: np.ndarray) -> np.ndarray:
    """The same values, every other element of a larger array, last axis stored backwards."""
    if not x.ndim:
        return x.copy()
    wide = np.zeros(tuple(2 * n for n in x.shape), dtype=x.dtype)
    every_other = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view = every_other[..., ::-1]
    view[...] = x
    return view


@on_host
def test_needs_skip_and_do_not_change_the_rest(target, case, sample):
    arrays = sample.draw("random", "float32")
    _, dy, pullback = call(case, sample, target, arrays)
    full = pullback(dy)
    for i in range(len(full)):
        needs = tuple(j == i for j in range(len(full)))
        _, _, one = call(case, sample, target, arrays, needs=needs)
        expected = [g if j == i else None for j, g in enumerate(full)]
        assert same(one(dy), expected)


@on_host
def test_runs_and_pullbacks_repeat_to_the_bit(target, case, sample):
    arrays = sample.draw("random", "float32")
    y, dy, pullback = call(case, sample, target, arrays)
    again, _, _ = call(case, sample, target, arrays)
    assert same([y], [again])
    assert same(pullback(dy), pullback(dy))


@on_host
def test_an_array_written_to_between_calls_is_read_afresh(target, case, sample):
    arrays = sample.draw("random", "float32")
    call(case, sample, target, arrays)
    other = sample.draw("positive", "float32")
    for name, x in arrays.items():
        if x is not None:
            x[...] = other[name]
    written, dy, pullback = call(case, sample, target, arrays)
    fresh, _, fresh_pullback = call(case, sample, target, other)
    assert same([written], [fresh])
    assert same(pullback(dy), fresh_pullback(dy))


# An overwritten cell is not seen, and one row always normalises to its beta, whatever it holds.
HIDES = {"max_unpool-equal indices", "batch_norm-one row"}


@pytest.mark.parametrize(NAMES, calls(HOST, lambda case, sample: f"{case.name}-{sample.name}" not in HIDES))
def test_nan_and_inf_stay_where_they_are_seen(target, case, sample):
    """One nan in the input makes just those results nan that a large number there would change; the rest is as it was.

    So with an infinity, and with the gradients, where y is linear in the input. (The weight gradient of a transposed
    convolution multiplies x with the cells of dy that padding cut off, which are zero: nan and inf show there.)
    """
    clean = sample.draw()
    name = next(iter(clean))
    if not clean[name].size:
        pytest.skip("nothing to place it in")
    place = tuple(np.random.default_rng(1).integers(clean[name].shape))
    linear = bool(case.linear) and not sample.options.get("activation")

    def results(value):
        arrays = {k: None if x is None else x.copy() for k, x in clean.items()}
        arrays[name][place] = value
        y, dy, pullback = call(case, sample, target, arrays)
        return [y, *(pullback(dy) if linear and case.op is not ops.conv_transpose else ())]

    here, above, below = (results(value) for value in (clean[name][place], 1e3, -1e3))
    for value in (np.nan, np.inf) if linear else (np.nan,):
        for calm, up, down, hit in zip(here, above, below, results(value), strict=True):
            if calm is not None:
                seen = (calm != up) | (calm != down)
                assert np.array_equal(~np.isfinite(hit), seen)
                assert np.array_equal(hit[~seen], calm[~seen])


@on_targets
def test_the_engine_asked_for_answers(target, case, sample):
    require(target)
    arrays = {name: make(target, x) for name, x in sample.draw().items()}
    with xpconv.use_engine(*target.chain):
        assert xpconv.explain(case.op, **arrays, **sample.options)[target.engine].startswith("chosen: ")


@pytest.mark.parametrize(NAMES, calls(HOST, lambda case, sample: case.linear))
def test_linear_gradients_are_adjoints(target, case, sample):
    """<dy, J v> = <Jᴴ dy, v> to 1e-12 in float64, for each array in which y is linear."""
    if sample.options.get("activation"):
        pytest.skip("an activation makes it nonlinear")
    arrays, names = sample.draw(), registered(case.op).arrays
    # What is added (a bias, a residual) is left out: y is linear, not affine, in each of the others.
    kept = {k: x for k, x in arrays.items() if x is not None and (k in case.linear or not is_inexact(x))}
    for name in (n for n in case.linear if n in kept):
        v = np.random.default_rng(3).standard_normal(kept[name].shape).astype(kept[name].dtype)
        jv, dy, pullback = call(case, sample, target, {**kept, name: v})
        gradient = pullback(dy)[names.index(name)]
        left, right = np.vdot(dy, jv), np.vdot(gradient, v)
        assert abs(left - right) <= 1e-12 * np.sum(np.abs(dy) * np.abs(jv))


@pytest.mark.parametrize(
    NAMES[1:], [pytest.param(case, s, id=f"{case.name}-{s.name}") for case in CASES for s in case.samples]
)
def test_gradients_agree_with_central_differences(case, sample):
    arrays = sample.draw()
    if any(x is not None and x.size == 0 for x in arrays.values()):
        pytest.skip("nothing to differ in an empty batch")
    report = xpconv.check_gradients(case.op, **arrays, **sample.options)
    floating = [x for x in arrays.values() if x is not None and x.dtype.kind in "fc"]
    assert not floating or case.kinked or report.skipped == 0
    assert not floating or report.checked > report.skipped


@pytest.mark.parametrize("target", [t for t in TARGETS if absent(t)], ids=lambda t: t.name)
def test_targets_that_are_not_here_are_reported(target):
    require(target)
