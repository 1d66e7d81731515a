"""Nothing public goes untested: every op has a case, every primitive is reached, every import points one way."""

from __future__ import annotations

import xpconv
from xpconv import dispatch
from xpconv.dispatch import OPS, registered
from xpconv.engines import portable, reference
from xpconv.parity import CASES


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
    for case in CASES:
        for sample in case.samples:
            asked.clear()
            y, pullback = xpconv.vjp(case.op, **sample.draw(), **sample.options)
            pullback(y[0] if isinstance(y, tuple) else y)
            call = registered(case.op).bind(**sample.draw(), **sample.options)
            assert asked == {name for name, _, _ in call.parts()}, f"{case.name}, {sample.name}"
