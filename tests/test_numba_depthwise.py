"""What the laws do not see of compiled depthwise convolution: any width and window, bad cells, stores past caches."""

from __future__ import annotations

import numpy as np
import pytest
from numba_conv import compiled_alone, draw, exact, on

from xpconv import ops

pytestmark = compiled_alone


@pytest.mark.parametrize("channels", [*range(1, 18), 33])
def test_depthwise_of_any_width_agrees_with_portable(channels):
    for stride, size in ((1, 3), (2, 3), (3, 2)):
        x, w = draw(2, 11, 13, channels), draw(size, size, 1, channels)
        options = {"stride": stride, "padding": 1, "groups": channels}
        for mine, right in zip(on("numba", x, w, **options), exact(x, w, **options), strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-4)


BLOCKS = {  # size, kernel, options: how taps lie together, and how pixels come out in lines
    "5 × 5": ((12, 15), (5, 5), {"padding": 2}),
    "7 × 7": ((9, 17), (7, 7), {"padding": 3}),
    "a kernel wider than the image": ((3, 2), (7, 7), {"padding": 3}),
    "uneven": ((16, 9), (3, 2), {"padding": ((0, 3), (2, 0)), "stride": (3, 1)}),
    "dilated": ((13, 12), (3, 3), {"padding": 2, "dilation": 2}),
    "dilated lines": ((13, 12), (3, 3), {"padding": (2, 1), "dilation": (2, 1)}),
    "one line": ((1, 200), (3, 3), {"padding": 1}),
    "1-D": ((150,), (5,), {"padding": 2, "stride": 2}),
    "3-D": ((5, 6, 9), (3, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
    "odd strides": ((11, 14), (5, 3), {"padding": ((2, 0), (1, 3)), "stride": (2, 3)}),
    "strides past the kernel": ((9, 13), (1, 2), {"padding": (0, 1), "stride": (2, 4)}),
}


@pytest.mark.parametrize("call", BLOCKS)
@pytest.mark.parametrize("activation", [None, "relu6", "silu"])
def test_depthwise_of_any_window_agrees_with_portable(call, activation):
    size, kernel, options = BLOCKS[call]
    x, w = draw(2, *size, 18), draw(*kernel, 1, 18)
    options = {**options, "groups": 18, "activation": activation}
    y = ops.conv(x, w, **options)
    more = {"b": draw(18), "residual": draw(*y.shape, seed=3)}
    wide = {name: value.astype("float64") for name, value in more.items()}
    dy = draw(*y.shape, seed=9)
    mine = on("numba", x, w, dy, **options, **more)
    right = on("portable", *(a.astype("float64") for a in (x, w, dy)), **options, **wide)
    for a, b in zip(mine, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_goes_past_the_caches_is_the_same(monkeypatch, stride):
    from xpconv.engines.numba import arrays
    from xpconv.engines.numba.machine import machine

    x, w, b = draw(2, 19, 22, 32), draw(3, 3, 1, 32), draw(32)
    options = {"stride": stride, "padding": 1, "groups": 32}
    near = on("numba", x, w, b=b, activation="relu", **options)
    monkeypatch.setattr(arrays, "_CACHED", 0)
    if machine().lanes("float32") == 16:  # narrower vectors are no whole lines
        assert arrays.streams(x, near[0], 16)
    for mine, other in zip(on("numba", x, w, b=b, activation="relu", **options), near, strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_bad_cell_spoils_its_own_taps_alone(bad, stride):
    """Depthwise, all three directions: tiles overlap, and lines that are not kept are computed too."""
    x, w = draw(1, 13, 15, 16), draw(3, 3, 1, 16)
    options = {"stride": stride, "padding": 1, "groups": 16}
    x[0, 6, 14, 3] = x[0, 12, 7, 5] = bad
    for mine, right in zip(on("numba", x, w, **options), exact(x, w, **options), strict=True):
        assert np.array_equal(np.isfinite(mine), np.isfinite(right))
