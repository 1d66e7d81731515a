"""What the laws do not see of compiled elementwise ops and sums: accuracy in ulps, kinks, many slabs, threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from targets import TestTarget, absent

import xpconv
from xpconv import ops
from xpconv.dispatch import engine_primitives, select

pytestmark = [
    pytest.mark.skipif(bool(absent(TestTarget("numpy", "numba"))), reason="numba is not installed here"),
    pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow", "ignore:divide by zero"),
]

DTYPES = ("float32", "float64")
LONG = np.longdouble
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0, 6.0, -6.0, 1.0, -1.0, 1e30, -1e30)


@pytest.fixture(autouse=True)
def compiled():
    with xpconv.use_engine("numba"):
        yield


def on_engine(engine, op, *arrays, dy=None, **options):
    """The result and gradients of a call, for dy (default: ones)."""
    with xpconv.use_engine(engine):
        y, pullback = xpconv.vjp(op, *arrays, **options)
    first = y[0] if isinstance(y, tuple) else y
    return y, pullback(np.ones_like(first) if dy is None else dy)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, LONG(1), e) / (1 + e)


FUNCTIONS = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "silu": lambda x: x * sigmoid(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


@pytest.mark.skipif(np.finfo(LONG).nmant < 60, reason="no extended precision to compare with")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_curves_are_within_three_ulps(name, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([scale * rng.standard_normal(4001) for scale in (1e-4, 0.3, 1, 8, 25)]).astype(dtype)
    y, true = getattr(ops, name)(x), FUNCTIONS[name](x.astype(LONG))
    assert y.dtype == x.dtype
    assert np.max(np.abs(y - true) / np.spacing(np.abs(true).astype(dtype))) < 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_fade_into_subnormals_and_zero(dtype):
    ends = {"float32": (-87.0, -104.0), "float64": (-708.0, -746.0)}[dtype]
    x = np.linspace(*ends, 1001).astype(dtype)
    y, tiny = ops.sigmoid(x), np.finfo(dtype).smallest_subnormal
    assert np.all(np.diff(y) <= 0)
    assert np.all(np.abs(y - np.exp(x.astype(LONG))) <= 2 * tiny + 4 * np.spacing(y))
    assert y[0] > 0
    assert ops.sigmoid(np.full(1, 2 * ends[1], dtype=dtype))[0] == 0


def test_gelus_approximation_has_the_far_ends_of_portable():
    x = np.array(SPECIAL)
    one, other = (on_engine(engine, ops.gelu, x, approximate="tanh") for engine in ("numba", "portable"))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-14)
    np.testing.assert_allclose(one[1][0], other[1][0], rtol=1e-14)


@pytest.mark.parametrize(("dtype", "m", "written"), [("float32", 3, 1e-9), ("float64", 4, 2.0**-53)])
def test_the_normal_tail_is_made_of_quotients_through_chebyshev_nodes(dtype, m, written):
    """A polynomial of each kind in x, so that their quotient is exp(x²/2) (1 - Φ(x)) at the nodes."""
    mpmath = pytest.importorskip("mpmath")
    from llvmlite import ir

    from xpconv.engines.numba.kernels.lanes import FORMATS

    f = FORMATS[ir.FloatType() if dtype == "float32" else ir.DoubleType()]
    above, below = len(f.tail_above), len(f.tail_below)
    n = above + below - 1  # the highest coefficient below is 1
    with mpmath.workdps(60):
        far = mpmath.mpf(repr(f.far))
        rows, powers = mpmath.matrix(n, n), mpmath.matrix(n, 1)
        for i in range(n):
            t = (mpmath.cos(mpmath.pi * (2 * i + 1) / (2 * n)) + 1) * far / (far + m) - 1
            x = m * (1 + t) / (1 - t)
            wanted = mpmath.erfc(x / mpmath.sqrt(2)) / 2 * mpmath.exp(x * x / 2)
            rows[i, :] = mpmath.matrix([[*(x**j / wanted for j in range(above)), *(-(x**j) for j in range(below - 1))]])
            powers[i] = x ** (below - 1)
        made = mpmath.lu_solve(rows, powers)
    for coefficient, exact in zip((*f.tail_above, *f.tail_below[:-1]), made, strict=True):
        assert abs(coefficient / exact - 1) <= written


PLAIN = ("relu", "relu6", "sigmoid", "tanh", "softplus", "silu", "hard_swish")
KINKED = {
    **{name: [{}] for name in PLAIN},
    "clip": [{"min": -1.0, "max": 3.0}, {"min": 0.0}, {"max": 6.0}, {}],
    "leaky_relu": [{}, {"slope": -2.0}],
    "elu": [{"alpha": 0.3}],
    "hard_sigmoid": [{}, {"alpha": 0.5, "beta": 0.5}],
    "gelu": [{}],
}
CALLS = [(name, options) for name, several in KINKED.items() for options in several]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), CALLS)
def test_kinks_and_far_ends_are_those_of_portable(name, options, dtype):
    x, dy = np.array(SPECIAL, dtype=dtype), np.arange(1.0, 1 + len(SPECIAL), dtype=dtype)
    one, other = (on_engine(engine, getattr(ops, name), x, dy=dy, **options) for engine in ("numba", "portable"))
    rounding = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(one[0], other[0], rtol=rounding)
    np.testing.assert_allclose(one[1][0], other[1][0], rtol=rounding, atol=rounding * dy.max())


@pytest.mark.parametrize("name", PLAIN)
def test_norm_with_an_activation_is_norm_then_activation(name):
    rng = np.random.default_rng(2)
    x, dy = (
        rng.standard_normal((2, 40, 33, 20), dtype=np.float32),
        rng.standard_normal((2, 40, 33, 20), dtype=np.float32),
    )
    gamma, beta = rng.standard_normal((2, 20), dtype=np.float32)
    y, grads = on_engine("numba", ops.batch_norm, x, gamma, beta, dy=dy, activation=name)
    z, back = xpconv.vjp(ops.batch_norm, x, gamma, beta)
    two, through = xpconv.vjp(getattr(ops, name), z)
    assert np.array_equal(y, two)
    for fused, apart in zip(grads, back(*through(dy)), strict=True):
        np.testing.assert_allclose(fused, apart, rtol=1e-5, atol=1e-5 * np.abs(apart).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_that_stores_past_the_caches_gives_the_same(dtype, monkeypatch):
    x, dy, residual = np.random.default_rng(12).standard_normal((3, 2, 40, 33, 32)).astype(dtype)
    results = []
    for past in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr("xpconv.engines.numba.norm.streams", lambda x, y, lanes: past)  # noqa: B023
            y, grads = on_engine("numba", ops.batch_norm, x, None, None, dy=dy, residual=residual, activation="relu")
            results.append((y, *(g for g in grads if g is not None)))
    for plain, past in zip(*results, strict=True):
        assert np.array_equal(plain, past)


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_that_store_past_the_caches_give_the_same(dtype, monkeypatch):
    x, dy = np.random.default_rng(12).standard_normal((2, 40, 333, 33)).astype(dtype)
    results = []
    for past in (False, True):
        for module in ("activation", "prelu"):
            monkeypatch.setattr(f"xpconv.engines.numba.{module}.streams", lambda x, y, lanes: past)  # noqa: B023
        calls = (on_engine("numba", ops.gelu, x, dy=dy), on_engine("numba", ops.prelu, x, x[0, 0], dy=dy))
        results.append([part for y, grads in calls for part in (y, *grads)])
    for plain, past in zip(*results, strict=True):
        assert np.array_equal(plain, past)


@pytest.mark.parametrize(
    ("home", "op", "options"),
    [
        ("rownorm", ops.layer_norm, {"axes": -1}),
        ("groupnorm", ops.group_norm, {"num_groups": 4}),
        ("responsenorm", ops.local_response_norm, {"size": 5}),
    ],
)
def test_norms_of_samples_that_store_past_the_caches_give_the_same(home, op, options, monkeypatch):
    x, dy = np.random.default_rng(13).standard_normal((2, 2, 40, 33, 32), dtype=np.float32)
    plain = on_engine("numba", op, x, dy=dy, **options)
    monkeypatch.setattr(f"xpconv.engines.numba.{home}.streams", lambda x, y, lanes: True)
    past = on_engine("numba", op, x, dy=dy, **options)
    assert np.array_equal(plain[0], past[0])
    assert np.array_equal(plain[1][0], past[1][0])


def test_a_response_norm_keeps_its_neighbours_to_their_rows():
    """However many neighbours there are, under any workspace limit, and where what lies between rows would be nan."""
    x = np.random.default_rng(15).standard_normal((300, 21))
    x[100], x[150:152, 3], x[200, 20] = 0, np.inf, 1e200
    for size in (2, 5, 300):
        calls = [on_engine("portable", ops.local_response_norm, x, size, alpha=2.0, k=0.0)]
        for limit in (1, 2**20):
            with xpconv.workspace_limit(limit):
                calls.append(on_engine("numba", ops.local_response_norm, x, size, alpha=2.0, k=0.0))
        for y, (dx,) in calls[1:]:
            np.testing.assert_allclose(y, calls[0][0], rtol=1e-14)
            np.testing.assert_allclose(dx, calls[0][1][0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [64, 100])
def test_one_pixel_far_off_does_not_spoil_the_variance_of_its_sample(channels):
    x = np.random.default_rng(14).standard_normal((2, 40, 40, channels), dtype=np.float32)
    x[0, 0, 0] = 1e5  # in the first rows, by whose mean squares are taken
    y, true = ops.instance_norm(x), on_engine("portable", ops.instance_norm, x.astype(np.float64))[0]
    np.testing.assert_allclose(y[0], true[0], rtol=1e-5, atol=1e-6)
    assert np.array_equal(y[1], ops.instance_norm(x[1:])[0])  # whether samples or slabs are shared out


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_norm_keeps_x_and_a_few_numbers_per_channel(activation):
    x = np.ones((64, 32, 8), dtype=np.float32)
    run = engine_primitives("numba")["batch_norm"].run
    _, kept = run(x, *(None,) * 5, needs=(True,), eps=1e-5, return_stats=False, activation=activation)
    arrays = [part for part in kept if isinstance(part, np.ndarray)]
    assert any(part is x for part in arrays)
    assert sum(part.size for part in arrays) <= x.size + 16 * 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 16, 70])
def test_norm_of_data_far_from_zero_over_many_slabs(channels, dtype):
    """Also where a part of the rows is far from the rest: neither is the variance of the rest lost, nor negative."""
    rng = np.random.default_rng(channels)
    x = (1e4 + rng.standard_normal((5003, channels))).astype(dtype)
    for apart in (0, 40, 2000):
        x[:apart] = rng.standard_normal((apart, channels))
        (y, mean, var), _ = on_engine("numba", ops.batch_norm, x, None, None, return_stats=True)
        exact = x.astype(LONG)
        rounding = 64 * np.finfo(dtype).eps
        np.testing.assert_allclose(mean, exact.mean(0), rtol=rounding)
        np.testing.assert_allclose(var, exact.var(0), rtol=rounding)
        true = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
        np.testing.assert_allclose(y, true.astype(dtype), atol=rounding * np.abs(true).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100_003, 1), (9, 51, 47, 7), (70_000, 32), (40, 1100), (0, 5), (3, 0)])
def test_sums_of_columns_do_not_drift_on_constant_data(shape, dtype):
    for fill in (0.1, 0.7):
        dy = np.full(shape, fill, dtype=dtype)
        sums = select("bias_grad", dy).run(dy)
        assert (sums.shape, sums.dtype) == (shape[-1:], dy.dtype)
        np.testing.assert_allclose(sums, np.full(shape[-1], dy.flat[0] * LONG(dy.size // shape[-1])) if dy.size else 0,
                                   rtol=16 * np.finfo(dtype).eps)  # fmt: skip


def test_the_gradient_of_slopes_sums_their_own_channels():
    """However many there are: less than a vector, parts of one, and more than are kept apart; rests, too."""
    rng = np.random.default_rng(8)
    for rows, n in ((100_003, 1), (5001, 3), (1, 5), (70_001, 16), (4099, 24), (300, 130), (257, 1001)):
        x, dy = rng.standard_normal((2, rows, n), dtype=np.float32)
        slope = rng.standard_normal(n, dtype=np.float32)
        y, (dx, dslope) = on_engine("numba", ops.prelu, x, slope, dy=dy)
        assert np.array_equal(y, np.where(x > 0, x, slope * x))
        assert np.array_equal(dx, np.where(x > 0, dy, slope * dy))
        terms = np.minimum(x, 0).astype(np.float64) * dy
        np.testing.assert_allclose(dslope, terms.sum(0), rtol=0, atol=2e-6 * np.abs(terms).sum(0).max())


@pytest.mark.parametrize("count", [0, 5, 16_384, 100_003])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_each_element_are_those_of_portable(reduction, count):
    rng = np.random.default_rng(9)
    y, target = rng.standard_normal((2, count))
    for op in (ops.mse, ops.binary_cross_entropy_with_logits):
        dy = rng.standard_normal(count) if reduction == "none" else np.asarray(0.7)
        one, other = (on_engine(e, op, y, target, dy=dy, reduction=reduction) for e in ("numba", "portable"))
        np.testing.assert_allclose(one[0], other[0], rtol=1e-13, atol=1e-15)
        for a, b in zip(one[1], other[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_losses_do_not_drift_on_constant_data():
    y, target = np.full(3_000_000, 0.1, np.float32), np.zeros(3_000_000, np.float32)
    np.testing.assert_allclose(ops.mse(y, target), np.float64(y[0]) ** 2, rtol=16 * 2.0**-24)


THREADED = {
    "batch_norm": ({"x": (3, 50, 60, 40), "gamma": (40,), "beta": (40,)}, {"activation": "relu"}),
    "local_response_norm": ({"x": (3, 50, 60, 40)}, {"size": 5, "alpha": 1.0}),
    "softmax": ({"x": (500, 300)}, {}),
    "log_softmax": ({"x": (20, 300, 50)}, {"axis": 1}),
    "tanh": ({"x": (400, 1000)}, {}),
}


@pytest.mark.parametrize("name", THREADED)
def test_the_number_of_threads_changes_no_bit(name):
    rng = np.random.default_rng(4)
    shapes, options = THREADED[name]
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes.values()]
    dy = rng.standard_normal(arrays[0].shape, dtype=np.float32)
    results = []
    for threads in (1, 2, 5):
        with xpconv.set_num_threads(threads):
            y, grads = on_engine("numba", getattr(ops, name), *arrays, dy=dy, **options)
            results.append([y, *grads, select("bias_grad", dy).run(dy)])
    for one, other in itertools.pairwise(results):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(300, 40), (5, 3000), (7, 1), (0, 4)])
def test_cross_entropy_is_that_of_portable(shape, smoothing, reduction):
    rng = np.random.default_rng(5)
    logits = 5 * rng.standard_normal(shape, dtype=np.float32)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for kind in (np.int64, np.uint8, np.int32):
        labels = (rng.integers(0, 200, shape[0]) % shape[1]).astype(kind)
        one, other = (
            on_engine(engine, ops.softmax_cross_entropy, logits, labels, **options) for engine in ("numba", "portable")
        )
        np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one[1][0], other[1][0], rtol=1e-5, atol=1e-6)
        assert one[1][1] is None


def test_an_unknown_label_makes_its_own_row_nan():
    logits, labels = np.zeros((5, 4), dtype=np.float32), np.array([0, 4, -1, 3, 2**62])
    losses, (grads, _) = on_engine("numba", ops.softmax_cross_entropy, logits, labels, reduction="none")
    bad = np.array([False, True, True, False, True])
    assert np.array_equal(np.isnan(losses), bad)
    assert np.array_equal(np.isnan(grads).all(1), bad)
    assert np.array_equal(np.isnan(grads).any(1), bad)


@pytest.mark.parametrize("op", [ops.relu, ops.silu, ops.softmax, ops.log_softmax])
def test_memory_that_is_not_aligned_or_not_in_c_order(op):
    x = np.random.default_rng(6).standard_normal((6, 37), dtype=np.float32)
    unaligned = np.frombuffer(b"-" + x.tobytes(), dtype=np.float32, offset=1).reshape(x.shape)
    assert not unaligned.flags.aligned
    for same in (unaligned, np.asfortranarray(x), x[::-1].copy()[::-1]):
        assert np.array_equal(op(same), op(x))


def test_numpys_scalars_are_no_memory_to_be_read():
    """NumPy answers with them for arrays without axes; they hold the number where arrays have an address."""
    two, three = np.float32(2), np.float32(3)
    assert ops.relu(two) == two
    assert ops.add(np.asarray(two), three) == 5
    assert on_engine("numba", ops.relu, np.asarray(two), dy=three)[1][0] == 3
    logits, label = np.zeros(4, dtype=np.float32), np.int64(1)
    _, (grads, _) = on_engine("numba", ops.softmax_cross_entropy, logits, label, dy=two)
    assert np.array_equal(grads, [0.5, -1.5, 0.5, 0.5])
