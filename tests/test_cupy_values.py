"""What the laws do not see of the `cupy` engine's numbers: shapes beyond their samples, curves all along, every width.

On a GPU, or with `PYTHONPATH=tests/emulated`; elsewhere reported as skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
from cupy_calls import EMULATED, agrees_with_float64, on_device

import xpconv
from xpconv import ops
from xpconv.parity.bounds import error_in_bounds

cupy = pytest.importorskip("cupy")


@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_threads_that_take_several_channels(channels, dtype):
    """Few samples of the laws have as many channels as one load brings."""
    calls = {
        "max_pool": {"kernel_size": 3, "stride": 2, "padding": 1},
        "avg_pool": {"kernel_size": 3, "stride": 2, "padding": 1},
        "conv": {"groups": channels, "padding": 1, "activation": "relu"},
        "batch_norm": {},
        "silu": {},
        "add": {"activation": "silu"},
        "prelu": {},
        "pad": {"padding": ((3, 1), (0, 8)), "mode": "reflect"},
        "resize": {"output_size": (5, 9), "mode": "bilinear"},
    }
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 6, channels))
    more = {
        "conv": (rng.standard_normal((3, 3, 1, channels)), rng.standard_normal(channels)),
        "batch_norm": (rng.standard_normal(channels), rng.standard_normal(channels)),
        "add": (rng.standard_normal(x.shape),),
        "prelu": (rng.standard_normal(channels),),
    }
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    for name, options in calls.items():
        with xpconv.use_backend("cupy"):
            arrays = [xpconv.asarray(a, dtype) for a in (x, *more.get(name, ()))]
        exact = [xpconv.to_numpy(a).astype(np.float64) for a in arrays]
        op = getattr(ops, name)
        with xpconv.use_engine("cupy"):
            y, pullback = xpconv.vjp(op, *arrays, **options)
            dy = xpconv.backend.get("cupy").asarray(rng.standard_normal(y.shape), dtype)
            grads = pullback(dy)
        true, true_pullback = xpconv.vjp(op, *exact, **options)
        exact_grads = true_pullback(xpconv.to_numpy(dy).astype(np.float64))
        for got, expected in zip((y, *grads), (true, *exact_grads), strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(xpconv.to_numpy(got), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("rows", "n"), [(5, 4), (1030, 520), (300, 10), (9, 1000), (3, 1001), (1, 40_004), (2, 9001)])
def test_rows_of_any_length(rows, n, dtype):
    """Of a few threads, of several warps, and longer than the registers of a block hold; in vectors and one by one."""
    rng = np.random.default_rng(n)
    x = 4 * rng.standard_normal((rows, n)) + 7
    labels = rng.integers(0, n, rows)
    agrees_with_float64(ops.softmax, (x,), dtype)
    agrees_with_float64(ops.log_softmax, (x,), dtype)
    agrees_with_float64(ops.layer_norm, (x, 1 + 0.1 * rng.standard_normal(n), rng.standard_normal(n)), dtype)
    for smoothing in (0.0, 0.1):
        agrees_with_float64(ops.softmax_cross_entropy, (x, labels), dtype, label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("rows", "channels"), [(70_000, 1), (9001, 3), (5003, 8), (1111, 36), (300, 200)])
def test_sums_over_many_rows(rows, channels, dtype):
    """In many slabs, of which the last is short; in tiles of columns of which the last is not full."""
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((rows, channels)) + 30 * np.arange(channels)
    parameters = 1 + 0.1 * rng.standard_normal(channels), rng.standard_normal(channels)
    agrees_with_float64(ops.batch_norm, (x, *parameters), dtype, activation="relu")
    if dtype == "float32":  # sums of so many halves are of another size than their terms
        agrees_with_float64(ops.instance_norm, (x.reshape(1, rows, channels), *parameters), dtype)
        agrees_with_float64(ops.linear, (x[:, :1], parameters[0][None], parameters[1]), dtype, activation="silu")
        agrees_with_float64(ops.mse, (x, x + rng.standard_normal(x.shape)), dtype)
    agrees_with_float64(ops.prelu, (x - x.mean(0), parameters[0]), dtype)
    agrees_with_float64(ops.prelu, (x - x.mean(0), parameters[0][:1]), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 70, 40), 4), ((2, 150, 40), 4), ((2, 33, 320), 8), ((3, 90, 36), 36), ((2, 7, 30), 3), ((1, 3000, 12), 3)],
)
def test_groups_of_any_size(shape, groups, dtype):
    """Whole in a block, or in a larger one, with groups that begin within a vector; and more rows than any holds."""
    rng = np.random.default_rng(groups)
    x = rng.standard_normal(shape) + 9 * (np.arange(shape[-1]) % 7)
    parameters = 1 + 0.1 * rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])
    agrees_with_float64(ops.group_norm, (x, groups, *parameters), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_of_channels(dtype):
    """Ops whose other samples have fewer channels than a vector; shared places, neighbours beyond it."""
    rng = np.random.default_rng(7)
    x, places = rng.standard_normal((2, 5, 6, 16)), rng.integers(0, 63, (2, 5, 6, 16))
    for p in (1.0, 2.0, 3.0):
        agrees_with_float64(ops.lp_pool, (x,), dtype, kernel_size=3, stride=2, padding=1, p=p)
    agrees_with_float64(ops.max_unpool, (x, places), dtype, output_size=(7, 9))
    for size, beta in ((5, 0.75), (12, 0.5)):
        agrees_with_float64(ops.local_response_norm, (x,), dtype, size=size, alpha=2.0, beta=beta)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(700, 16), (130, 96), (700, 5), (3, 1500), (2, 2048)])
def test_response_norms_of_rows_that_blocks_hold_many_or_one_of(shape, dtype):
    """In several blocks, of which the last has fewer; in packs of a thread that are and that are not all there."""
    x = np.random.default_rng(7).standard_normal(shape)
    for size in (5, 8):
        agrees_with_float64(ops.local_response_norm, (x,), dtype, size=size, alpha=2.0)


@pytest.mark.parametrize(
    ("op", "options", "ulps", "dtype"),
    [
        (ops.gelu, {}, 16, "float32"),
        (ops.gelu, {}, 16, "float64"),
        (ops.gelu, {"approximate": "tanh"}, 16, "float32"),
        (ops.softplus, {}, 8, "float32"),
    ],
)
def test_approximations_are_right_everywhere(op, options, ulps, dtype):
    """What has polynomials of its own, all along the curve, and not where a sample happens to fall."""
    x = np.linspace(-12, 12, 100_001, dtype=dtype)
    y, pullback = xpconv.vjp(op, on_device(x), **options)
    true, true_pullback = xpconv.vjp(op, x.astype(np.float64), **options)
    (dx,), (true_dx,) = pullback(cupy.ones_like(y)), true_pullback(np.ones_like(true))
    for got, expected, scale in ((y, true, np.maximum(np.abs(true), 1e-3)), (dx, true_dx, np.abs(true_dx) + 1)):
        assert error_in_bounds(got.get(), expected, ulps * scale, dtype) < 0.7  # of what parity permits
    far = op(on_device(np.array([np.inf, np.nan, 3e38, -3e38], dtype)), **options).get()
    np.testing.assert_array_equal(far, np.array([np.inf, np.nan, 3e38, 0], dtype))


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("size", [(1, 9), (6, 7), (5, 8)])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (3, {"stride": 2}),
        (5, {"stride": 2, "padding": 2}),
        (5, {"padding": ((1, 6), (0, 2))}),
        (2, {"dilation": 3}),
        (13, {}),
    ],
)
def test_depthwise_runs_of_any_length(channels, size, kernel, options):
    """Threads take four neighbours along a line, three cells of a row of a kernel, more than 128 terms in blocks."""
    rng = np.random.default_rng(kernel)
    padding = options.pop("padding", kernel // 2 * options.get("dilation", 1))
    x, w = rng.standard_normal((2, *size, channels)), rng.standard_normal((kernel, kernel, 1, channels))
    for multiplier in (1, 2):
        taps = np.concatenate([w] * multiplier, axis=-1)
        agrees_with_float64(ops.conv, (x, taps), "float32", groups=channels, padding=padding, **options)


def test_tf32_is_for_fast_only():
    rng = np.random.default_rng(0)
    x, w = (on_device(rng.standard_normal(shape).astype(np.float32)) for shape in ((64, 64), (64, 64)))
    exact = x.get().astype(np.float64) @ w.get()
    with xpconv.use_engine("cupy"):
        ieee = np.abs(ops.linear(x, w).get() - exact).max()
        with xpconv.precision("fast"):
            fast = np.abs(ops.linear(x, w).get() - exact).max()
    assert ieee < 2e-5
    assert fast < 5e-2
    if EMULATED or int(cupy.cuda.Device().compute_capability) >= 80:
        assert fast > 10 * ieee


@pytest.mark.parametrize(
    ("op", "options"),
    [(ops.relu, {}), (ops.gelu, {}), (ops.clip, {"min": 0.0}), (ops.dropout, {"rate": 0.5, "key": (1, 2)})],
)
def test_an_array_without_axes_stays_one(op, options):
    with xpconv.use_engine("cupy"):
        y, pullback = xpconv.vjp(op, cupy.asarray(np.float32(2)), **options)
        (dx,) = pullback(cupy.ones_like(y))
    assert (y.shape, dx.shape) == ((), ())


@pytest.mark.parametrize("activation", ["relu", "relu6", "sigmoid", "silu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sum_in_half_precision_is_rounded_once(dtype, activation):
    """Value and gradient are those of the sum in float32: a sum that was rounded first would differ in every tenth."""
    rng = np.random.default_rng(0)
    with xpconv.use_backend("cupy"):
        x, other, dy = (xpconv.asarray(3 * rng.standard_normal(999), dtype) for _ in range(3))
    with xpconv.use_engine("cupy"):
        y, pullback = xpconv.vjp(ops.add, x, other, activation=activation)
        dx, dother = pullback(dy)
    wide = [xpconv.to_numpy(a).astype(np.float64) for a in (x, other, dy)]
    true, true_pullback = xpconv.vjp(ops.add, *wide[:2], activation=activation)
    half = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    for got, expected in ((y, true), (dx, true_pullback(wide[2])[0]), (dother, true_pullback(wide[2])[1])):
        np.testing.assert_allclose(xpconv.to_numpy(got).astype(np.float64), expected, rtol=1.01 * half, atol=1e-6)


@pytest.mark.parametrize("mode", ["constant", "edge", "wrap", "reflect"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_width_of_padding_agrees_with_the_portable_engine(n, mode):
    """Also many times around: copies are found by arithmetic, not from a table."""
    x = on_device(np.random.default_rng(n).standard_normal((1, n, 2)))
    for before in (0, 1, n - 1, n, 2 * n + 1, 3 * n):
        for after in (0, 1, 2 * n - 1, 3 * n + 1):
            results = []
            for chosen in ("cupy", "portable"):
                with xpconv.use_engine(chosen):
                    y, pullback = xpconv.vjp(ops.pad, x, ((before, after),), mode=mode, value=2.5)
                    results.append((y.get(), pullback(cupy.cos(y))[0].get()))
            (y, dx), (true, true_dx) = results
            np.testing.assert_array_equal(y, true)
            np.testing.assert_allclose(dx, true_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{"mode": "nearest"}, {"mode": "nearest-exact"}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_change_of_size_agrees_with_the_portable_engine(options):
    for n in (1, 2, 3, 7, 10):
        x = on_device(np.random.default_rng(n).standard_normal((1, n, 2)))
        for out in (1, 2, 3, 5, 7, 9, 14, 31):
            results = []
            for chosen in ("cupy", "portable"):
                with xpconv.use_engine(chosen):
                    y, pullback = xpconv.vjp(ops.resize, x, out, **options)
                    results.append((y.get(), pullback(cupy.cos(y))[0].get()))
            for got, expected in zip(*results, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_the_loss_of_one_image_has_no_axes():
    with xpconv.use_engine("cupy"):
        loss = ops.softmax_cross_entropy(cupy.ones(3, "float32"), cupy.asarray(np.array(1)), reduction="none")
    assert loss.shape == ()
