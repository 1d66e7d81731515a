"""Dropout: the published vectors of its generator, the same bits everywhere, and what it does to data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import ops
from xpconv.engines.portable.dropout import philox

# Counter words, key words, output words: the known answers that Random123, its authors' library, is published with.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
BACKENDS = ["numpy", "array_api_strict", "array_api_strict:device1", "torch", "cupy"]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if missing(request.param):
        pytest.skip(missing(request.param))
    xpconv.use_backend(request.param)
    return request.param


@pytest.mark.parametrize(("counter", "key", "out"), KNOWN)
def test_the_published_vectors(counter, key, out, backend):
    limbs = tuple(xpconv.asarray([word], dtype="int64") for word in words(counter))
    got = philox(limbs, tuple(words(key)))
    assert [int(xpconv.to_numpy(word)[0]) for word in got] == words(out)


def kept(n, rate, seed, counter, *, first=0):
    """Which of n elements from block ``first`` on stay, in Python's own integers."""
    keep = []
    for block in range(first, first - (-n // 4)):
        c = [block, 0, counter % 2**32, counter >> 32]
        k0, k1 = seed % 2**32, seed >> 32
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(b >> 32) ^ c[1] ^ k0, b % 2**32, (a >> 32) ^ c[3] ^ k1, a % 2**32]
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        keep += [word >= math.floor(rate * 2**32) for word in c]
    return np.array(keep[:n], dtype=bool)


@pytest.mark.parametrize("limit", ["256", "64M"])
@pytest.mark.parametrize("key", [(0, 0), (7, 1), (2**64 - 1, 2**64 - 1), (3 << 40, 5 << 33)])
def test_the_mask_is_the_one_documented(key, limit, backend):
    """Element i takes word i % 4 of block i // 4, whatever the pieces the work is cut into."""
    expected = kept(3 * 7 * 5, 0.3, *key).reshape(3, 7, 5)
    with xpconv.workspace_limit(limit):
        y, pullback = xpconv.vjp(ops.dropout, xpconv.asarray(np.ones((3, 7, 5), "float32")), 0.3, key=key)
        (dx,) = pullback(xpconv.asarray(np.full((3, 7, 5), 2.0, "float32")))
    scale = np.float32(1 / 0.7)
    np.testing.assert_array_equal(xpconv.to_numpy(y), np.where(expected, scale, np.float32(0)))
    np.testing.assert_array_equal(xpconv.to_numpy(dx), np.where(expected, 2 * scale, np.float32(0)))


def test_the_mask_of_many_pieces_is_the_same_everywhere(backend):
    x = np.ones((7, 301, 313), "float32")
    y = xpconv.to_numpy(ops.dropout(xpconv.asarray(x), 0.3, key=(11, 2)))
    np.testing.assert_array_equal(y, ops.dropout(x, 0.3, key=(11, 2)))
    first = x.size // 4 - 50
    np.testing.assert_array_equal(y.ravel()[4 * first :] != 0, kept(x.size - 4 * first, 0.3, 11, 2, first=first))


@pytest.mark.parametrize("counter", [5, 2**40 + 3])
def test_a_counter_on_the_device_draws_the_same(counter, backend):
    x = xpconv.asarray(np.arange(50.0))
    from_int = ops.dropout(x, 0.5, key=(9, counter))
    from_array = ops.dropout(x, 0.5, key=(9, xpconv.asarray(np.array(counter))))
    np.testing.assert_array_equal(xpconv.to_numpy(from_int), xpconv.to_numpy(from_array))


def test_the_gradient_keeps_its_mask_when_the_counter_moves_on():
    counter = np.array(0)
    y, pullback = xpconv.vjp(ops.dropout, np.ones(100), 0.5, key=(1, counter))
    counter += 1
    np.testing.assert_array_equal(pullback(np.ones(100))[0], y)
    assert not np.array_equal(ops.dropout(np.ones(100), 0.5, key=(1, counter)), y)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1 - 2**-20])
def test_the_share_that_stays_and_the_mean(rate):
    n = 400_000
    y = ops.dropout(np.ones(n), rate, key=(2, 0))
    share = np.count_nonzero(y) / n
    assert abs(share - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-15)


def test_neighbouring_keys_and_elements_are_independent():
    draws = np.array(
        [ops.dropout(np.ones(40_000), 0.5, key=key) != 0 for key in [(0, 0), (0, 1), (1, 0), (0, 1 << 32)]]
    )
    centred = np.concatenate([draws, draws[:1, np.r_[1:40_000, 0]]]) - 0.5
    correlation = 4 * (centred @ centred.T) / 40_000 - np.eye(5)
    assert np.abs(correlation).max() < 5 / math.sqrt(40_000)


def test_what_is_dropped_is_zero_whatever_it_was():
    x = np.array([np.nan, np.inf, 1.0, -np.inf] * 50)
    y = ops.dropout(x, 0.5, key=(4, 0))
    mask = kept(200, 0.5, 4, 0)
    assert (y[~mask] == 0).all()
    np.testing.assert_array_equal(y[mask], 2 * x[mask])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 1)])
def test_every_shape_and_dtype(shape, dtype):
    x = np.ones(shape, dtype)
    y, pullback = xpconv.vjp(ops.dropout, x, 0.25, key=(0, 0))
    for result in (y, *pullback(y)):
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("rate", "key", "error", "word"),
    [
        (1.0, (0, 0), ValueError, "below 1"),
        (-0.1, (0, 0), ValueError, "-0.1"),
        (math.nan, (0, 0), ValueError, "nan"),
        (0.5, 7, TypeError, "pair (seed, counter)"),
        (0.5, (0.5, 0), TypeError, "seed"),
        (0.5, (-1, 0), ValueError, "0..2**64-1"),
        (0.5, (0, 2**64), ValueError, "counter"),
        (0.5, (0, np.zeros(2, int)), TypeError, "0-d integer"),
        (0.5, (0, np.array(1.0)), TypeError, "0-d integer"),
    ],
)
def test_a_bad_rate_or_key_is_named(rate, key, error, word):
    with pytest.raises(error) as caught:
        ops.dropout(np.ones(3), rate, key=key)
    assert word in str(caught.value)
