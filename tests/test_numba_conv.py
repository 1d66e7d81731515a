"""What the laws do not see of compiled convolution: edges of each algorithm, threads, layouts, and which is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from numba_conv import CALLS, algorithms, compiled_alone, draw, on

import xpconv
from xpconv import ops

pytestmark = compiled_alone


@pytest.mark.parametrize("call", CALLS)
def test_any_number_of_threads_gives_the_same_bits(call):
    x, w, options = CALLS[call]
    x, w, answers = draw(*x), draw(*w), []
    for threads in (1, 2, 5):
        with xpconv.set_num_threads(threads):
            assert all(f"{threads} thread" in text for text in algorithms(x, w, **options))
            answers.append(on("numba", x, w, **options))
    for other in answers[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(answers[0], other, strict=True))


@pytest.mark.parametrize("channels", [64, 24])
def test_a_large_input_gradient_is_zero_where_no_window_reaches(channels):
    x, w = draw(1, 260, 180, channels), draw(1, 1, channels, 20)  # more than 4 MiB
    y, dx, _ = on("numba", x, w, stride=2)
    np.testing.assert_allclose(dx[:, ::2, ::2], draw(*y.shape, seed=9) @ w[0, 0].T, rtol=1e-4, atol=1e-4)
    assert not dx[:, 1::2].any()
    assert not dx[:, :, 1::2].any()


@pytest.mark.parametrize("call", ["Winograd", "depthwise", "few channels"])
def test_any_layout_of_memory_gives_the_same(call):
    x, w, options = CALLS[call]
    x, w = draw(*x), draw(*w)
    plain = on("numba", x, w, **options)
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), "float32")
    wide[..., 1:-2] = x
    for view in (
        wide[..., 1:-2],  # gaps between cells
        x[:, ::-1].copy()[:, ::-1],
        np.repeat(x, 2, axis=2)[:, :, ::2],
        np.moveaxis(np.moveaxis(x, -1, 1).copy(), 1, -1),  # channels far apart
    ):
        view.flags.writeable = False
        for a, b in zip(on("numba", view, w, **options), plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 0, 3), (2, ((0, 3), (4, 1)), 5), (3, 1, 2)], ids=str)
def test_columns_agree_with_portable(channels, stride, padding, size):
    x, w = draw(2, 13, 14, channels, dtype="float64"), draw(size, size, channels, 5, dtype="float64")
    options = {"stride": stride, "padding": padding}
    assert ("columns" in algorithms(x, w, **options)[1]) == (2 * channels <= 8)
    for mine, right in zip(on("numba", x, w, **options), on("portable", x, w, **options), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-11, atol=1e-11)


def test_explain_tells_algorithm_tile_threads_cost_and_scratch():
    with xpconv.set_num_threads(2):
        text = algorithms(draw(4, 28, 28, 64), draw(3, 3, 64, 64), padding=1)[0]
    assert "conv_fprop (Winograd F(2×2, 3×3), tiles of " in text
    assert "2 threads, 116 M multiply-adds at the cost of 62.5 M, " in text
    assert "iB scratch)" in text
    linear = xpconv.explain(ops.linear, draw(2, 8), draw(8, 5))["numba"]
    assert all(part in linear for part in ("y: direct sum", "dx: direct sum", "dw: sum of outer products", "1 thread,"))


def test_few_channels_are_not_worth_the_transforms():
    for channels in (8, 16, 64):
        x, w = draw(2, 28, 28, channels), draw(3, 3, channels, channels)
        for text in algorithms(x, w, padding=1)[:2]:
            assert ("Winograd" in text) == (channels > 8), text


@pytest.mark.parametrize("out_channels", [6, 24, 40])
def test_channels_that_end_within_a_vector(out_channels):
    x, w = draw(2, 9, 8, 5), draw(3, 3, 5, out_channels)
    for ours, theirs in zip(on("numba", x, w, padding=1), on("portable", x, w, padding=1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [2**18, 2**20, 3 * 2**20, 2**28])
def test_the_algorithm_does_not_depend_on_the_threads(limit):
    from xpconv.engines.numba import choice
    from xpconv.engines.numba.tiling import Room
    from xpconv.window import conv_window

    for size, kernel, stride, padding in (
        ((112, 5), (3, 1), 2, (1, 0)),
        ((56, 56), (3, 3), 1, 1),
        ((14, 14), (5, 5), 2, 2),
    ):
        window = conv_window("conv", size, kernel, stride, padding, 1)
        for channels, dtype in ((32, "float32"), (64, "float64"), (128, "float32")):
            problem = choice.Problem(dtype, 2, channels, channels, 1, window, False)
            ways = {
                tuple(
                    (step.choice.name, step.choice.cost)
                    for steps in (
                        (choice.output_step(problem, room, False),),
                        choice.input_steps(problem, room, False, True),
                        (choice.weight_step(problem, room),),
                    )
                    for step in steps
                )
                for room in (Room(threads, limit, False) for threads in (1, 2, 8, 64))
            }
            assert len(ways) == 1
