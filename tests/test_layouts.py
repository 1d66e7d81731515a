"""Layouts, on every library."""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import exchange, ops

BACKENDS = ["numpy", "array_api_strict", "torch", "cupy"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if missing(request.param):
        pytest.skip(f"{request.param}: {missing(request.param)}")
    with xpconv.use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_axes_go_where_they_belong(backend, rank):
    sizes = (4, 5, 6)[:rank]
    host = np.arange(2 * 3 * np.prod(sizes)).reshape(2, 3, *sizes)
    x = xpconv.asarray(host)
    for forth, back, axes in (
        (exchange.to_nhwc, exchange.to_nchw, (0, *range(2, rank + 2), 1)),
        (exchange.to_hwio, exchange.to_oihw, (*range(2, rank + 2), 1, 0)),
    ):
        moved = forth(x)
        assert type(moved) is type(x)
        np.testing.assert_array_equal(xpconv.to_numpy(moved), np.transpose(host, axes))
        np.testing.assert_array_equal(xpconv.to_numpy(back(moved)), host)


@pytest.mark.parametrize("function", [exchange.to_nhwc, exchange.to_nchw, exchange.to_hwio, exchange.to_oihw])
@pytest.mark.parametrize("shape", [(2, 3), (2,) * 6])
def test_other_numbers_of_axes_are_refused(function, shape):
    with pytest.raises(ValueError, match=f"{function.__name__}: . must have 3 to 5 axes"):
        function(np.zeros(shape))


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"to_nhwc: x is a list"):
        exchange.to_nhwc([[[1.0]]])


def test_convolutions_agree_with_torch_across_the_border():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(8, 2, 3, 3))
    t = rng.normal(size=(4, 3, 3, 2))
    y = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding=1, groups=2).numpy()
    ours = ops.conv(exchange.to_nhwc(x), exchange.to_hwio(w), padding=1, groups=2)
    np.testing.assert_allclose(exchange.to_nchw(ours), y, atol=1e-12)
    z = torch.nn.functional.conv_transpose2d(torch.tensor(x), torch.tensor(t), stride=2, groups=2).numpy()
    ours = ops.conv_transpose(exchange.to_nhwc(x), exchange.to_hwio(t), stride=2, groups=2)
    np.testing.assert_allclose(exchange.to_nchw(ours), z, atol=1e-12)
