"""Convolutions by the compiled engine alone, and beside others; what `explain` says of each direction."""

from __future__ import annotations

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import ops

NAMES = ("conv_fprop", "conv_dgrad", "conv_wgrad")
here = pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here")
compiled_alone = [here, pytest.mark.usefixtures("numba_alone")]


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def on(engine, x, w, dy=None, **options):
    """y, dx and dw."""
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(ops.conv, x, w, **options)
        return y, *pullback(draw(*y.shape, dtype=y.dtype, seed=9) if dy is None else dy)


def exact(x, w, **options):
    """y, dx and dw in float64, for the same dy."""
    y = ops.conv(x, w, **options)
    return on("portable", x.astype("float64"), w.astype("float64"), draw(*y.shape, seed=9).astype("float64"), **options)


def algorithms(x, w, **options):
    """What `explain` says of each direction."""
    text = xpconv.explain(ops.conv, x, w, **options)["numba"]
    starts = [text.index(name) for name in NAMES]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def direct_only(monkeypatch):
    """Let nothing be done by Winograd's algorithm."""
    from xpconv.engines.numba import choice

    monkeypatch.setattr(choice.winograd, "form_of", lambda work, large=False: None)
    forget()


def forget():
    from xpconv.engines.numba import choice

    for cached in (choice.output_step, choice.input_steps, choice.weight_step, choice.of_pass, choice.of_sum):
        cached.cache_clear()


CALLS = {
    "Winograd": ((2, 20, 22, 32), (3, 3, 32, 32), {"padding": 1}),
    "direct": ((2, 21, 22, 24), (3, 3, 24, 40), {"padding": 1, "stride": 2}),
    "groups": ((2, 15, 16, 24), (3, 3, 12, 48), {"groups": 2}),
    "depthwise": ((3, 31, 32, 40), (3, 3, 1, 40), {"padding": 1, "groups": 40}),
    "few channels": ((3, 33, 34, 3), (5, 5, 3, 16), {"padding": 2, "stride": 2}),
}
