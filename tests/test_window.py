"""The window: every way of writing it, and its arithmetic against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpconv.window import conv_window, pool_window, transposed_window

small = st.integers(1, 4)


def starts(window, axis=0):
    return [i * window.stride[axis] - window.padding[axis][0] for i in range(window.out[axis])]


def span(window, axis=0):
    return window.dilation[axis] * (window.kernel[axis] - 1) + 1


@given(n=st.integers(1, 20), k=small, s=small, d=small, lo=st.integers(0, 5), hi=st.integers(0, 5))
def test_windows_fill_the_padded_input_and_no_more(n, k, s, d, lo, hi):
    try:
        window = conv_window("conv", (n,), (k,), s, ((lo, hi),), d)
    except ValueError as error:
        assert "larger than the padded input" in str(error)
        assert d * (k - 1) + 1 > n + lo + hi
        return
    last = starts(window)[-1]
    assert last + span(window) <= n + hi < last + s + span(window)
    assert window.padded == (last + lo + span(window),)


@pytest.mark.parametrize("padding", ["same", "same_lower"])
@given(n=st.integers(1, 20), k=st.integers(1, 6), s=small, d=small)
def test_same_keeps_ceil_n_over_stride_with_the_odd_cell_at_its_end(padding, n, k, s, d):
    window = conv_window("conv", (n,), (k,), s, padding, d)
    lo, hi = window.padding[0]
    assert window.out == (-(-n // s),)
    assert (hi - lo if padding == "same" else lo - hi) in (0, 1)


@given(n=st.integers(1, 20), k=st.integers(1, 6), s=small, d=small)
def test_causal_sees_no_later_cell(n, k, s, d):
    window = conv_window("conv", (n,), (k,), s, "causal", d)
    assert window.out == (-(-n // s),)
    assert all(start + span(window) - 1 == i * s for i, start in enumerate(starts(window)))


@given(n=st.integers(1, 20), k=st.integers(1, 5), s=st.integers(1, 5), p=st.integers(0, 2), ceil=st.booleans())
def test_every_pool_window_holds_a_real_cell(n, k, s, p, ceil):
    try:
        window = pool_window("max_pool", (n,), k, s, p, 1, ceil)
    except ValueError as error:
        assert "larger than the padded input" in str(error) or "only padding" in str(error)
        return
    assert all(start < n and start + k > 0 for start in starts(window))
    exact = (n + 2 * p - k) / s
    assert window.out[0] - 1 in (int(np.floor(exact)), int(np.ceil(exact)))
    if ceil and window.out[0] - 1 < exact:  # the last window was dropped, so it would start in the end padding
        assert starts(window)[-1] + s >= n


@given(n=st.integers(1, 10), k=small, s=small, d=small, p=st.integers(0, 2), extra=st.integers(0, 3))
def test_transposed_undoes_the_size_of_a_convolution(n, k, s, d, p, extra):
    if extra and extra >= max(s, d):
        with pytest.raises(ValueError, match="output_padding"):
            transposed_window("conv_transpose", (n,), (k,), s, p, d, extra)
        return
    try:
        window = transposed_window("conv_transpose", (n,), (k,), s, p, d, extra)
    except ValueError as error:
        assert "leaves no output" in str(error)
        return
    assert window.out == (n,)
    assert window.size == ((n - 1) * s - 2 * p + d * (k - 1) + 1 + extra,)
    if extra < s:
        assert conv_window("conv", window.size, (k,), s, p, d).out == (n,)


@given(n=st.integers(1, 10), k=st.integers(1, 6), s=small, d=small)
def test_transposed_same_multiplies_by_the_stride(n, k, s, d):
    assert transposed_window("conv_transpose", (n,), (k,), s, "same", d).size == (n * s,)


def test_every_way_of_writing_is_the_same_window():
    plain = conv_window("conv", (9, 8), (3, 2), 2, 1, 1)
    assert plain == conv_window("conv", (9, 8), (3, 2), (2, 2), (1, 1), (1, 1))
    assert plain == conv_window("conv", (9, 8), (3, 2), [2, 2], [[1, 1], [1, 1]], [1, 1])
    assert plain == conv_window("conv", (9, 8), (3, 2), np.int64(2), ((1, 1), (1, 1)), np.array(1))
    assert plain == conv_window("conv", (9, 8), (3, 2), np.array([2, 2]), ([1, 1], (np.int64(1), 1)), 1)
    assert conv_window("conv", (9,), (3,), padding="valid") == conv_window("conv", (9,), (3,), padding=0)
    assert pool_window("max_pool", (9, 8), 3) == pool_window("max_pool", (9, 8), (3, 3), 3)


def test_ceil_mode_holds_a_window_that_begins_inside_but_ends_beyond():
    assert pool_window("max_pool", (2, 2), 3, 2, 0, 1, True).out == (1, 1)
    with pytest.raises(ValueError, match="larger than the padded input"):
        pool_window("max_pool", (2, 2), 3, 2)


def test_ceil_mode_drops_a_window_that_would_start_in_the_end_padding_where_sizes_divide_too():
    assert pool_window("max_pool", (8,), 2, 2, ((0, 2),), 1, True).out == (4,)
