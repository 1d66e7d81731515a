"""Settings: a call for the context, a block, the environment; and a pullback keeps those of its vjp."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import xpconv
from xpconv import ops, settings
from xpconv.dispatch import Primitive

X = np.ones((1, 4, 4, 2))
W = np.ones((3, 3, 2, 2))


def test_a_setting_that_was_made_tells_what_holds_now():
    earlier = xpconv.settings.current().precision
    with xpconv.precision("ieee"):
        told = repr(xpconv.precision("fast"))
    assert told == "<precision: 'fast' from now on; in a with statement until its end, then 'ieee' again>"
    assert xpconv.settings.current().precision == earlier


def test_what_was_not_set_is_called_by_what_it_means():
    with settings.applied(settings.Settings()):
        assert repr(xpconv.set_num_threads(2)).endswith("then every core that may be used again>")
        assert repr(xpconv.use_engine("reference")).endswith("then 'auto' again>")


def test_a_value_goes_by_position_or_name_and_a_call_that_does_not_fit_shows_how():
    with xpconv.use_backend(name="numpy"), xpconv.set_num_threads(n=1), xpconv.workspace_limit(bytes="2K"):
        assert (settings.current().num_threads, settings.current().workspace_limit) == (1, 2048)
    with pytest.raises(TypeError, match=r"^set_num_threads: missing a required argument.*\n  set_num_threads\(n\)"):
        xpconv.set_num_threads()
    with pytest.raises(TypeError, match=r"^use_engine: got an unexpected keyword .*\n  use_engine\(\*names\)"):
        xpconv.use_engine(engine="portable")


def test_a_call_sets_and_a_block_restores():
    assert settings.current().precision == "ieee"
    with xpconv.precision("fast"):
        assert settings.current().precision == "fast"
        with xpconv.workspace_limit(1000):
            assert settings.current().precision == "fast"
        assert settings.current().workspace_limit == 256 * 2**20
    assert settings.current().precision == "ieee"
    xpconv.precision("fast")
    assert settings.current().precision == "fast"


def test_a_block_restores_after_an_error():
    with pytest.raises(RuntimeError), xpconv.use_engine("reference"):
        raise RuntimeError
    assert settings.current().engine is None


def test_threads_do_not_disturb_one_another():
    seen = []
    with xpconv.precision("fast"):
        thread = threading.Thread(target=lambda: seen.append(settings.current().precision))
        thread.start()
        thread.join()
    assert seen == ["ieee"]


def test_auto_is_the_chain_of_the_library():
    with xpconv.use_engine("reference"), xpconv.use_engine("auto"):
        assert "not in the chain" not in xpconv.explain(ops.conv, X, W)["portable"]


def test_a_pullback_uses_the_settings_of_its_vjp():
    asked = []

    def spy(primitive: Primitive, engine: str) -> Primitive:
        return primitive._replace(run=lambda *a, **o: (asked.append(engine), primitive.run(*a, **o))[1])

    from xpconv.engines import portable, reference

    originals = {e: e.PRIMITIVES["conv_wgrad"] for e in (portable, reference)}
    try:
        for engine in originals:
            engine.PRIMITIVES["conv_wgrad"] = spy(originals[engine], engine.__name__.rsplit(".", 1)[1])
        with xpconv.use_engine("reference"):
            y, pullback = xpconv.vjp(ops.conv, X, W)
        pullback(y)
    finally:
        for engine, primitive in originals.items():
            engine.PRIMITIVES["conv_wgrad"] = primitive
    assert asked == ["reference"]


def test_a_strict_chain_raises_with_every_reason(monkeypatch):
    from xpconv.engines import portable, reference

    def refuse(*_, **__):
        return "declines: the moon is full"

    monkeypatch.setitem(reference.PRIMITIVES, "relu", reference.PRIMITIVES["relu"]._replace(declines=refuse))
    monkeypatch.delitem(portable.PRIMITIVES, "relu")
    with xpconv.use_engine("reference", "portable"), pytest.raises(xpconv.EngineError) as caught:
        ops.relu(X)
    assert "reference declines: the moon is full; portable has no relu" in str(caught.value)
    with xpconv.use_engine("reference", "portable"):
        answers = xpconv.explain(ops.relu, X)
    outside = "not in the chain (reference, portable) of these arrays"
    others = {name: outside for name in settings.ENGINES if name not in ("reference", "portable")}
    assert answers == {"reference": "declines: the moon is full", "portable": "has no relu", **others}


def test_an_engine_for_another_library_declines_whatever_the_op_is():
    strict = pytest.importorskip("array_api_strict")
    pytest.importorskip("numba")
    x, w = strict.asarray(X), strict.asarray(W)
    with xpconv.use_engine("numba"):
        for op, args in ((ops.conv, (x, w)), (ops.pad, (x, 1)), (ops.relu, (x,))):
            with pytest.raises(xpconv.EngineError, match="numba is not for arrays of array_api_strict"):
                op(*args)
    with xpconv.use_engine("numba", "portable"):
        assert xpconv.explain(ops.relu, x)["portable"] == "chosen: relu"
        assert np.array_equal(xpconv.to_numpy(ops.relu(x)), np.maximum(X, 0))


def test_the_first_engine_that_does_not_decline_takes_it(monkeypatch):
    from xpconv.engines import reference

    monkeypatch.setitem(
        reference.PRIMITIVES,
        "conv_wgrad",
        reference.PRIMITIVES["conv_wgrad"]._replace(declines=lambda *_, **__: "is shy"),
    )
    with xpconv.use_engine("reference", "portable"):
        answers = xpconv.explain(ops.conv, X, W)
    assert answers["reference"] == "chosen: conv_fprop (8 windows, one at a time), conv_dgrad; is shy"
    assert answers["portable"].startswith("chosen: conv_wgrad")


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("XPCONV_BACKEND", "array_api_strict", "backend", "array_api_strict"),
        ("XPCONV_ENGINE", "reference, portable", "engine", ("reference", "portable")),
        ("XPCONV_PRECISION", "fast", "precision", "fast"),
        ("XPCONV_WORKSPACE_LIMIT", "64M", "workspace_limit", 64 * 2**20),
        ("XPCONV_DETERMINISTIC", "1", "deterministic", True),
        ("XPCONV_AUTOTUNE", "false", "autotune", False),
        ("XPCONV_NUM_THREADS", "3", "num_threads", 3),
    ],
)
def test_the_environment_sets_the_default(variable, value, field, expected):
    code = f"import xpconv; from xpconv import settings; print(settings.current().{field} == {expected!r})"
    env = {**os.environ, variable: value}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout
    assert out.strip() == "True"


def test_the_workspace_limit_holds_scratch_down():
    """Peak memory of a convolution, less its output, stays within the limit (and what a piece needs at least)."""
    import tracemalloc

    x, w = np.ones((4, 64, 64, 16), "float32"), np.ones((5, 5, 16, 16), "float32")
    dy = np.ones((4, 60, 60, 16), "float32")
    ops.max_pool(x[:1, :9, :9], 3, stride=1)  # kernels may have to be compiled first, which is no scratch
    xpconv.vjp(ops.conv, x[:1, :9, :9], w)[1](dy[:1, :5, :5])
    for limit in (2**18, 2**20):
        with xpconv.workspace_limit(limit):
            ops.conv(x, w)
            for call, result in (
                (lambda: ops.conv(x, w), dy.nbytes),
                (lambda: xpconv.vjp(ops.conv, x, w)[1](dy)[0], x.nbytes + dy.nbytes + w.nbytes),
                (lambda: ops.max_pool(x, 3, stride=1), dy.nbytes * 2),
            ):
                tracemalloc.start()
                call()
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak <= result + 1.2 * limit + 2**17
