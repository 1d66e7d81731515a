"""What a pullback returns, and what it keeps."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import xpconv
from xpconv import ops
from xpconv.parity import CASES, case_of


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.fixture
def arrays():
    return normal(2, 5, 5, 3), normal(3, 3, 3, 4), normal(4)


def shapes(grads):
    return [None if g is None else g.shape for g in grads]


def test_one_entry_for_each_array_as_far_as_the_last_one_passed(arrays):
    x, w, b = arrays
    dy = np.ones((2, 3, 3, 4))
    residual = normal(2, 3, 3, 4)

    def entries(*args, **options):
        return shapes(xpconv.vjp(ops.conv, *args, **options)[1](dy))

    assert entries(x, w) == [x.shape, w.shape]
    assert entries(x, w, b) == [x.shape, w.shape, b.shape]
    assert entries(x, w, None) == [x.shape, w.shape, None]
    assert entries(x, w=w) == [x.shape, w.shape]
    assert entries(x=x, w=w, b=b) == [x.shape, w.shape, b.shape]
    assert entries(x, w, residual=residual) == [x.shape, w.shape, None, dy.shape]
    assert entries(x, w, b, needs=(False, True, True)) == [None, w.shape, b.shape]
    assert entries(x, w, needs=(False, False)) == [None, None]


def test_other_positional_arguments_pass_through():
    x = normal(1, 4, 4, 2)
    y, pullback = xpconv.vjp(ops.max_pool, x, 2)
    (dx,) = pullback(y)
    assert dx.shape == x.shape
    y, pullback = xpconv.vjp(ops.group_norm, x, 2, np.ones(2), np.zeros(2))
    assert shapes(pullback(y)) == [x.shape, (2,), (2,)]


def test_integer_arrays_have_no_gradient():
    logits, labels = normal(3, 5), np.array([0, 4, 2])
    loss, pullback = xpconv.vjp(ops.softmax_cross_entropy, logits, labels)
    dlogits, dlabels = pullback(np.ones_like(loss))
    assert dlogits.shape == (3, 5)
    assert dlabels is None


def test_dy_pairs_with_y_where_an_op_returns_more():
    x = normal(1, 4, 4, 2)
    (y, indices), pullback = xpconv.vjp(ops.max_pool, x, 2, return_indices=True)
    assert indices.dtype == np.int64
    assert pullback(y)[0].shape == x.shape


def test_a_pullback_may_be_called_again(arrays):
    x, w, b = arrays
    y, pullback = xpconv.vjp(ops.conv, x, w, b, activation="silu")
    first, second = pullback(y), pullback(2 * y)
    for once, twice in zip(first, second, strict=True):
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", [ops.conv, ops.conv_transpose])
@pytest.mark.parametrize(("needs", "kept"), [((True, False), "w"), ((False, True), "x")])
def test_what_is_not_needed_is_not_kept(op, needs, kept):
    x, w = normal(1, 5, 5, 3), normal(3, 3, 3, 3)
    watched = {"x": weakref.ref(x), "w": weakref.ref(w)}
    y, pullback = xpconv.vjp(op, x, w, needs=needs)
    del x, w
    gc.collect()
    assert {name for name, ref in watched.items() if ref() is not None} == {kept}
    pullback(y)
    del pullback
    gc.collect()
    assert all(ref() is None for ref in watched.values())


def test_check_gradients_finds_a_wrong_gradient(monkeypatch):
    from xpconv.engines import portable

    right = portable.PRIMITIVES["tanh"]

    def backward(residuals, dy, needs):
        return (1.01 * right.backward(residuals, dy, needs)[0],)

    x = normal(3, 4)
    xpconv.use_engine("portable")
    assert xpconv.check_gradients(ops.tanh, x).max_error < 1e-8
    monkeypatch.setitem(portable.PRIMITIVES, "tanh", right._replace(backward=backward))
    with pytest.raises(xpconv.GradientError, match=r"tanh: dx: the gradient disagrees.*\n.*cell"):
        xpconv.check_gradients(ops.tanh, x)


def test_check_gradients_skips_and_reports_ties():
    report = xpconv.check_gradients(ops.max_pool, np.ones((1, 4, 4, 1)), 2)
    assert (report.checked, report.skipped) == (0, 16)
    report = xpconv.check_gradients(ops.relu, np.array([-1.0, 0.0, 2.0]))
    assert (report.checked, report.skipped) == (2, 1)


@pytest.mark.parametrize("engine", ["portable", "numba"])
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_gradient_is_dy_itself_or_shares_no_memory_with_what_was_given(name, engine):
    """Layers keep gradients of parameters without a copy on the strength of this."""
    if engine == "numba":
        pytest.importorskip("numba")
    with xpconv.use_engine(engine, "portable"):
        for sample in case_of(name).samples:
            arrays = sample.draw("random", "float32")
            y, pullback = xpconv.vjp(case_of(name).op, **arrays, **sample.options)
            dy = np.ones_like(y[0] if isinstance(y, tuple) else y)
            found = [g for g in pullback(dy) if g is not None]
            given = [*(x for x in arrays.values() if x is not None), dy, *(y if isinstance(y, tuple) else (y,))]
            again = [g for g in pullback(dy) if g is not None]
            for i, g in enumerate(found):
                others = [x for x in (*given, *again, *found[:i]) if x is not g]
                assert not any(np.shares_memory(g, x) for x in others), f"{sample.name}, gradient {i}"


def test_what_is_added_to_dx_must_be_like_x():
    x, w = np.ones((2, 6, 6, 3), "float32"), np.ones((3, 3, 3, 4), "float32")
    y, pullback = xpconv.vjp(ops.conv, x, w)
    (plain, _), (joined, _) = pullback(y), pullback(y, 2 * x)
    np.testing.assert_allclose(joined, plain + 2, rtol=1e-5)
    for other, kind in ((x[:1], ValueError), (np.ones(x.shape), TypeError), (3, TypeError)):
        with pytest.raises(kind, match="beside"):
            pullback(y, other)
    _, alone = xpconv.vjp(ops.relu, x)
    with pytest.raises(TypeError, match="takes dy alone"):
        alone(x, x)
