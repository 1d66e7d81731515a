"""Convolution and its transpose against PyTorch, values and all gradients, over a seeded draw of every option."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpconv
from xpconv import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MOST_CELLS = {1: 9, 2: 6, 3: 4}  # along one axis, so that the loops of the definition stay quick
ACTIVATIONS = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    "hard_swish": F.hardswish,
}
engines = pytest.mark.parametrize("engine", ["portable", "reference"])
seeds = pytest.mark.parametrize("seed", range(48))


class Drawn(NamedTuple):
    """One call: arrays in this package's layout, `None` for those left out, and options."""

    arrays: dict[str, Any]
    options: dict[str, Any]
    workspace: int

    @property
    def rank(self) -> int:
        return self.arrays["x"].ndim - 2


def draw(seed: int, *, transposed: bool) -> Drawn:
    """Any rank, kernel, stride, dilation, uneven padding, groups (every fourth call depthwise), real or complex."""
    rng = np.random.default_rng(seed)
    rank = seed % 3 + 1

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(low, high + 1, rank))

    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding = tuple(zip(each(0, 2), each(0, 2), strict=True))
    groups, multiple = (int(n) for n in rng.integers(1, 4, 2))
    per_group = 1 if seed % 4 == 0 else int(rng.integers(1, 4))
    options = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    if transposed:
        options["output_padding"] = tuple(int(rng.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True))

    def output(n: int, axis: int) -> int:
        reach, cut = dilation[axis] * (kernel[axis] - 1) + 1, sum(padding[axis])
        if transposed:
            return (n - 1) * stride[axis] + reach - cut + options["output_padding"][axis]
        return (n + cut - reach) // stride[axis] + 1

    size = []
    for axis in range(rank):
        least = next(n for n in range(1, 20) if output(n, axis) >= 1)
        size.append(int(rng.integers(least, max(least, MOST_CELLS[rank]) + 1)))
    complex_ = seed % 5 == 0

    def normal(*shape: int) -> np.ndarray:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if complex_ else real

    narrow, wide = per_group * groups, groups * multiple  # w is (*kernel, narrow / groups, wide)
    entering, leaving = (wide, narrow) if transposed else (narrow, wide)
    batch = int(rng.integers(1, 3))
    arrays = {"x": normal(batch, *size, entering), "w": normal(*kernel, per_group, wide)}
    arrays["b"] = normal(leaving) if rng.random() < 0.7 else None
    if not transposed and rng.random() < 0.4:
        arrays["residual"] = normal(batch, *(output(n, axis) for axis, n in enumerate(size)), leaving)
    if not transposed and not complex_ and rng.random() < 0.5:
        options["activation"] = str(rng.choice(list(ACTIVATIONS)))
    return Drawn(arrays, options, int(rng.choice([1, 400, 2**28])))


def first(x: np.ndarray) -> Any:
    """(N, *spatial, C) -> (N, C, *spatial), and its way back below."""
    return torch.tensor(np.moveaxis(x, -1, 1).copy())


def last(t: Any) -> np.ndarray:
    return np.moveaxis(t.detach().resolve_conj().numpy(), 1, -1)


def outer(w: np.ndarray) -> Any:
    """(*kernel, I, O) -> (O, I, *kernel), and its way back below."""
    return torch.tensor(np.moveaxis(w, (-1, -2), (0, 1)).copy())


def inner(t: Any) -> np.ndarray:
    return np.moveaxis(t.detach().resolve_conj().numpy(), (0, 1), (-1, -2))


def vector(b: np.ndarray) -> Any:
    return torch.tensor(b)


def plain(t: Any) -> np.ndarray:
    return t.detach().resolve_conj().numpy()


TO = {"x": first, "w": outer, "b": vector, "residual": first}
BACK = {"x": last, "w": inner, "b": plain, "residual": last}


def flat(padding: Any) -> list[int]:
    """PyTorch's order for `F.pad`: the last axis first."""
    return [n for pair in reversed(padding) for n in pair]


def conv_peer(drawn: Drawn, t: dict[str, Any]) -> Any:
    options = dict(drawn.options)
    x, activation = F.pad(t["x"], flat(options.pop("padding"))), options.pop("activation", None)
    z = CONV[drawn.rank](x, t["w"], t["b"], **options)
    z = z if t.get("residual") is None else z + t["residual"]
    return z if activation is None else ACTIVATIONS[activation](z)


def transpose_peer(drawn: Drawn, t: dict[str, Any]) -> Any:
    """Uneven padding of a transposed convolution is cut off its output."""
    options = dict(drawn.options)
    padding = options.pop("padding")
    y = TRANSPOSE[drawn.rank](t["x"], t["w"], t["b"], **options)
    return y[(..., *(slice(lo, n - hi) for n, (lo, hi) in zip(y.shape[2:], padding, strict=True)))]


def compare(op: Any, drawn: Drawn, peer: Any, engine: str) -> None:
    """Shapes to the cell, values and every gradient to 1e-10."""
    with xpconv.use_engine(engine), xpconv.workspace_limit(drawn.workspace):
        y, pullback = xpconv.vjp(op, **drawn.arrays, **drawn.options)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
        dy = dy * (2 - 1j) if y.dtype.kind == "c" else dy
        grads = dict(zip(drawn.arrays, pullback(dy), strict=True))
    inputs = {name: None if x is None else TO[name](x).requires_grad_() for name, x in drawn.arrays.items()}
    expected = peer(drawn, inputs)
    expected.backward(first(dy))
    near(y, last(expected))
    for name, t in inputs.items():
        assert (grads[name] is None) == (t is None)
        if t is not None:
            near(grads[name], BACK[name](t.grad))


def near(got: np.ndarray, true: np.ndarray) -> None:
    assert (got.shape, got.dtype) == (true.shape, true.dtype)
    np.testing.assert_allclose(got, true, rtol=1e-10, atol=1e-10)


@engines
@seeds
def test_conv(seed, engine):
    compare(ops.conv, draw(seed, transposed=False), conv_peer, engine)


@engines
@seeds
def test_conv_transpose(seed, engine):
    compare(ops.conv_transpose, draw(seed, transposed=True), transpose_peer, engine)


def test_the_draw_covers_what_it_says():
    for transposed in (False, True):
        calls = [draw(seed, transposed=transposed) for seed in range(48)]
        assert {call.rank for call in calls} == {1, 2, 3}
        depthwise = [c for c in calls if c.arrays["w"].shape[-2] == 1 and c.options["groups"] > 1]
        uneven = [c for c in calls if any(lo != hi for lo, hi in c.options["padding"])]
        assert min(len(depthwise), len(uneven)) >= 5
        assert any(call.arrays["b"] is None for call in calls)
        if transposed:
            assert any(any(call.options["output_padding"]) for call in calls)
        else:
            assert {call.options.get("activation") for call in calls} >= {None, "relu", "tanh", "silu"}
            assert any("residual" in call.arrays for call in calls)


@engines
@pytest.mark.parametrize("rank", CONV)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_pads_the_odd_cell_at_the_end(rank, engine):
    rng = np.random.default_rng(rank)
    kernel, dilation = (4, 3, 2)[:rank], (1, 2, 3)[:rank]
    arrays = {"x": rng.standard_normal((2, *(5, 4, 4)[:rank], 2)), "w": rng.standard_normal((*kernel, 2, 3)), "b": None}
    drawn = Drawn(arrays, {"padding": "same", "dilation": dilation}, 2**28)
    compare(ops.conv, drawn, lambda drawn, t: CONV[rank](t["x"], t["w"], t["b"], **drawn.options), engine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_rounds_gradients_through_an_activation_once(activation, dtype):
    """Far out, where y rounded to half precision is flat, the slope is small and not 0."""
    rng = np.random.default_rng(0)
    x = torch.linspace(-8, 8, 2 * 33 * 2).reshape(2, 33, 2).to(dtype)
    w, b = (torch.tensor(rng.uniform(0.5, 1, shape)).to(dtype) for shape in ((1, 2, 3), (3,)))
    y, pullback = xpconv.vjp(ops.conv, x, w, b, activation=activation)
    dy = torch.tensor(rng.standard_normal(tuple(y.shape))).to(dtype)
    grads = pullback(dy)
    wide = [t.double().requires_grad_() for t in (x, w, b)]
    expected = ACTIVATIONS[activation](wide[0] @ wide[1][0] + wide[2])
    expected.backward(dy.double())
    once = torch.finfo(dtype).eps / 2
    for got, true in zip((y, *grads), (expected.detach(), *(t.grad for t in wide)), strict=True):
        assert got.dtype == dtype
        size = 1e-6 * max(1.0, float(true.abs().max()))  # what float32 leaves of 1 - y² near 1
        np.testing.assert_allclose(got.double().numpy(), true.numpy(), rtol=1.01 * once, atol=size)


def test_the_residual_has_a_gradient_of_its_own():
    x, w, residual = np.ones((1, 3, 3, 2)), np.ones((1, 1, 2, 4)), np.ones((1, 3, 3, 4))
    y, pullback = xpconv.vjp(ops.conv, x, w, residual=residual)
    dy = np.arange(float(math.prod(y.shape))).reshape(y.shape)
    gradient = pullback(dy)[3]
    np.testing.assert_array_equal(gradient, dy)
    assert not np.shares_memory(gradient, dy)
