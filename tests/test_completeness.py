"""Nothing public goes untested: every op has a case, every primitive is reached, every import points one way."""

from __future__ import annotations

import pytest

import xpconv
from xpconv import dispatch
from xpconv.dispatch import OPS, registered
from xpconv.engines import portable, reference
from xpconv.parity import CASES, case_of


def test_every_public_op_has_a_case():
    public = set(xpconv.ops.__all__)
    assert public == {op.__name__ for op in OPS}
    assert public == {case.name for case in CASES}


def test_both_total_engines_have_every_primitive_and_every_primitive_is_reached():
    reached = set()
    for case in CASES:
        for sample in case.samples:
            call = registered(case.op).bind(**sample.draw(), **sample.options)
            reached |= {name for name, _, _ in call.parts()}
    assert set(portable.PRIMITIVES) == set(reference.PRIMITIVES) == reached


def test_a_call_names_every_primitive_that_it_and_its_gradients_ask_for(monkeypatch):
    asked, offer = set(), dispatch._offer

    def recorded(engine, name, arrays, options):
        asked.add(name)
        return offer(engine, name, arrays, options)

    monkeypatch.setattr(dispatch, "_offer", recorded)
    xpconv.use_engine("portable")  # what is asked for does not depend on who answers, and this one need not be compiled
    for case in CASES:
        for sample in case.samples:
            asked.clear()
            y, pullback = xpconv.vjp(case.op, **sample.draw(), **sample.options)
            pullback(y[0] if isinstance(y, tuple) else y)
            call = registered(case.op).bind(**sample.draw(), **sample.options)
            assert asked == {name for name, _, _ in call.parts()}, f"{case.name}, {sample.name}"


# What the compiled engine serves in float32, forward and gradients: one that falls away would only be slow elsewhere.
NUMBA = (
    *("conv", "conv_transpose", "linear"),
    *("max_pool", "avg_pool", "lp_pool", "max_unpool", "global_avg_pool", "global_max_pool"),
    *("batch_norm", "layer_norm", "instance_norm", "group_norm", "local_response_norm"),
    *("relu", "relu6", "leaky_relu", "silu", "sigmoid", "tanh", "softplus", "elu"),
    *("hard_swish", "hard_sigmoid", "clip", "gelu", "prelu"),
    *("add", "dropout", "pad", "resize"),
    *("softmax", "log_softmax", "softmax_cross_entropy"),
    *("mse", "binary_cross_entropy_with_logits"),
)


@pytest.mark.parametrize("name", NUMBA)
def test_the_compiled_engine_serves_whole_calls(name):
    """Every sample in float32, but for those that it declines in words; and at least half of them."""
    pytest.importorskip("numba")
    samples, served = case_of(name).samples, 0
    real = [s for s in samples if all(x is None or x.dtype.kind != "c" for x in s.draw().values())]
    for sample in real:
        answers = xpconv.explain(getattr(xpconv.ops, name), **sample.draw("random", "float32"), **sample.options)
        assert "has no" not in answers["numba"], f"{sample.name}: {answers['numba']}"
        served += answers["portable"].startswith("comes after numba")
    assert served >= len(real) / 2, f"{served} of {len(real)} samples"


def test_every_primitive_of_the_compiled_engine_is_reached():
    pytest.importorskip("numba")
    from xpconv.engines import numba

    reached = set()
    for case in CASES:
        for sample in case.samples:
            for name, arrays, options in (
                registered(case.op).bind(**sample.draw("random", "float32"), **sample.options).parts()
            ):
                primitive = numba.PRIMITIVES.get(name)
                if primitive and not (primitive.declines and primitive.declines(*arrays, **options)):
                    reached.add(name)
    assert reached == set(numba.PRIMITIVES) & set(portable.PRIMITIVES)  # others are not those of ops
