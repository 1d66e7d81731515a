"""Samples of the pools: padding that must not win, ties, rests, and windows that overlap or leave gaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.parity.bounds import Scales, Truth, sums
from xpconv.parity.sample import Case, Rng, Sample, Spec, complex_normal


def _ties(*shape: int) -> Spec:
    """Whole numbers, so that some windows hold their maximum several times."""
    return lambda rng: np.round(2 * rng.standard_normal(shape))


def _some_zeros(*shape: int) -> Spec:
    def draw(rng: Rng) -> np.ndarray:
        x = rng.standard_normal(shape)
        x[:, :2, :4] = 0
        return x

    return draw


def _negative(*shape: int) -> Spec:
    return lambda rng: -1 - np.abs(rng.standard_normal(shape))


def _places(shape: tuple[int, ...], cells: int) -> Spec:
    """Indices into a plane of that many cells, some of them equal."""
    return lambda rng: rng.integers(0, cells, shape)


def _distinct_places(shape: tuple[int, ...], cells: int) -> Spec:
    def draw(rng: Rng) -> np.ndarray:
        planes = np.stack([rng.permutation(cells) for _ in range(shape[0] * shape[-1])], axis=-1)
        chosen = planes[: math.prod(shape[1:-1])].reshape(*shape[1:-1], shape[0], shape[-1])
        return np.moveaxis(chosen, -2, 0).copy()

    return draw


def _cells(truth: Truth) -> int:
    """Cells of a window: terms of its sum, and the most windows that may share a cell."""
    kernel = truth.options.get("kernel_size")
    rank = truth.y.ndim - 2
    return math.prod(kernel) if isinstance(kernel, tuple) else kernel**rank if kernel else _adaptive_cells(truth)


def _adaptive_cells(truth: Truth) -> int:
    """The most cells of an adaptive window, or outputs that share a cell."""
    sizes = zip(truth.arrays["x"].shape[1:-1], truth.y.shape[1:-1], strict=True)
    return math.prod(-(-max(n, o) // min(n, o)) + 1 for n, o in sizes)


def _moved(terms: Callable[[Truth], int]) -> Callable[[Truth], Scales]:
    """A selection is exact; a gradient adds up dy at each cell chosen."""

    def scales(truth: Truth) -> Scales:
        return Scales(0.0, _absolute(truth, math.sqrt(terms(truth))))

    return scales


def _norms(truth: Truth) -> Scales:
    """A power and its root err by a few ulps, and by p times that of the magnitudes."""
    ulps = math.sqrt(_cells(truth)) + 2 + 2 * truth.options.get("p", 2)
    return Scales(ulps * truth.y, _absolute(truth, ulps))


def _absolute(truth: Truth, factor: float) -> tuple[Any, ...]:
    """The largest gradient of |dy| in each sample and channel: what was added up, however it cancelled."""
    from xpconv.derivatives import vjp

    spatial = tuple(range(1, truth.dy.ndim - 1))
    grads = vjp(truth.op, **truth.arrays, **truth.options)[1](np.abs(truth.dy))
    return tuple(None if g is None else factor * np.abs(g).max(axis=spatial, keepdims=True, initial=0) for g in grads)


MAX_POOL = Case(
    ops.max_pool,
    (
        Sample("2x2", {"x": (2, 6, 8, 3)}, {"kernel_size": 2}),
        Sample("3x3, stride 2, padding 1", {"x": (2, 7, 8, 3)}, {"kernel_size": 3, "stride": 2, "padding": 1}),
        Sample("padding beside negatives", {"x": _negative(2, 5, 6, 2)}, {"kernel_size": 3, "stride": 1, "padding": 1}),
        Sample("ties", {"x": _ties(2, 7, 6, 3)}, {"kernel_size": 3, "stride": 2}),
        Sample("ties, all", {"x": _ties(2, 7, 6, 3)}, {"kernel_size": 3, "stride": 2, "ties": "all"}),
        Sample(
            "indices, asymmetric padding",
            {"x": (2, 7, 5, 2)},
            {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1)), "return_indices": True},
        ),
        Sample("stride beyond the kernel", {"x": (1, 9, 8, 2)}, {"kernel_size": 2, "stride": 3}),
        Sample("ceil mode", {"x": (2, 8, 9, 2)}, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        Sample("dilation", {"x": (2, 9, 8, 2)}, {"kernel_size": 3, "dilation": (2, 3), "padding": 2, "stride": 1}),
        Sample("same, even kernel", {"x": (2, 5, 6, 2)}, {"kernel_size": (2, 4), "stride": 2, "padding": "same"}),
        Sample("more cells than a byte counts", {"x": (1, 18, 18, 2)}, {"kernel_size": 17, "stride": 1}),
        Sample("1-D", {"x": (3, 11, 4)}, {"kernel_size": 3, "stride": 2, "return_indices": True}),
        Sample("3-D", {"x": (2, 4, 5, 6, 2)}, {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": 1}),
        Sample("1x1, stride 2", {"x": (2, 5, 4, 3)}, {"kernel_size": 1, "stride": 2}),
        Sample("empty batch", {"x": (0, 6, 8, 3)}, {"kernel_size": 2, "return_indices": True}),
    ),
    _moved(_cells),
    exact=True,
    kinked=True,
)

AVG_POOL = Case(
    ops.avg_pool,
    (
        Sample("2x2", {"x": (2, 6, 8, 3)}, {"kernel_size": 2}),
        Sample("3x3, stride 2, padding 1", {"x": (2, 7, 8, 3)}, {"kernel_size": 3, "stride": 2, "padding": 1}),
        Sample(
            "padding not counted",
            {"x": (2, 7, 8, 3)},
            {"kernel_size": 3, "stride": 2, "padding": ((1, 0), (1, 1)), "count_include_pad": False},
        ),
        Sample("ceil mode", {"x": (2, 8, 9, 2)}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        Sample("divisor", {"x": (2, 5, 6, 2)}, {"kernel_size": 2, "stride": 1, "divisor": 3}),
        Sample("stride beyond the kernel", {"x": (1, 9, 8, 2)}, {"kernel_size": (2, 1), "stride": 3}),
        Sample("dilation", {"x": (2, 9, 8, 2)}, {"kernel_size": 2, "dilation": (2, 3), "padding": 1, "stride": 1}),
        Sample("same_lower", {"x": (2, 5, 6, 2)}, {"kernel_size": 4, "stride": 1, "padding": "same_lower"}),
        Sample("1-D, 300 cells", {"x": (1, 320, 2)}, {"kernel_size": 300, "stride": 5}),
        Sample("1-D, 300 windows on a cell", {"x": (1, 620, 1)}, {"kernel_size": 300, "stride": 1}),
        Sample("3-D", {"x": (2, 4, 5, 6, 2)}, {"kernel_size": 2, "padding": 1}),
        Sample("complex", {"x": complex_normal(2, 5, 6, 2)}, {"kernel_size": 3, "stride": 1, "padding": 1}),
        Sample("empty batch", {"x": (0, 6, 8, 3)}, {"kernel_size": 2}),
    ),
    sums(lambda truth: (_cells(truth), _cells(truth))),
    linear=("x",),
)

LP_POOL = Case(
    ops.lp_pool,
    (
        Sample("2x2", {"x": (2, 6, 8, 3)}, {"kernel_size": 2}),
        Sample("p 1", {"x": (2, 5, 6, 2)}, {"kernel_size": 3, "stride": 1, "p": 1, "padding": 1}),
        Sample("p 3, stride 2", {"x": (2, 7, 6, 2)}, {"kernel_size": 3, "stride": 2, "p": 3, "ceil_mode": True}),
        Sample("p 0.5", {"x": (2, 5, 6, 2)}, {"kernel_size": 2, "p": 0.5}),
        Sample("windows of zeros", {"x": _some_zeros(1, 6, 8, 2)}, {"kernel_size": 2}),
        Sample("1-D, 150 cells, dilation", {"x": (1, 310, 2)}, {"kernel_size": 150, "dilation": 2, "stride": 3}),
        Sample("1-D, 150 windows on a cell", {"x": (1, 310, 1)}, {"kernel_size": 150, "stride": 1}),
        Sample("3-D", {"x": (1, 4, 5, 4, 2)}, {"kernel_size": 2, "stride": 1, "p": 4}),
        Sample("empty batch", {"x": (0, 6, 8, 3)}, {"kernel_size": 2}),
    ),
    _norms,
    kinked=True,
)

MAX_UNPOOL = Case(
    ops.max_unpool,
    (
        Sample("2-D", {"x": (2, 3, 2, 3), "indices": _distinct_places((2, 3, 2, 3), 30)}, {"output_size": (6, 5)}),
        Sample("equal indices", {"x": (2, 4, 3, 2), "indices": _places((2, 4, 3, 2), 20)}, {"output_size": (4, 5)}),
        Sample("1-D", {"x": (2, 5, 3), "indices": _distinct_places((2, 5, 3), 10)}, {"output_size": 10}),
        Sample("3-D", {"x": (1, 2, 2, 2, 2), "indices": _places((1, 2, 2, 2, 2), 64)}, {"output_size": 4}),
        Sample("empty batch", {"x": (0, 3, 2, 3), "indices": _places((0, 3, 2, 3), 30)}, {"output_size": (6, 5)}),
    ),
    _moved(lambda truth: 1),
    linear=("x",),
    exact=True,
)

_ADAPTIVE = (
    Sample("a divisor", {"x": (2, 6, 8, 3)}, {"output_size": (3, 2)}),
    Sample("no divisor", {"x": (2, 7, 8, 3)}, {"output_size": (3, 5)}),
    Sample("larger than the input", {"x": (1, 3, 5, 2)}, {"output_size": 7}),
    Sample("1-D, long", {"x": (1, 700, 2)}, {"output_size": 2}),
    Sample("1-D, 300 windows on a cell", {"x": (1, 3, 2)}, {"output_size": 900}),
    Sample("3-D", {"x": (2, 4, 5, 6, 2)}, {"output_size": (2, 5, 4)}),
    Sample("empty batch", {"x": (0, 6, 8, 3)}, {"output_size": 2}),
)
_GLOBAL = (
    Sample("7x7", {"x": (2, 7, 7, 5)}),
    Sample("1-D, long", {"x": (2, 700, 3)}),
    Sample("3-D", {"x": (2, 4, 3, 5, 2)}),
    Sample("empty batch", {"x": (0, 6, 8, 3)}),
)


def _average(op: Callable[..., Any], samples: tuple[Sample, ...], options: dict[str, Any]) -> Case:
    samples = (*samples, Sample("complex", {"x": complex_normal(2, 5, 6, 2)}, options))
    return Case(op, samples, sums(lambda truth: (_cells(truth), _cells(truth))), linear=("x",))


def _maximum(op: Callable[..., Any], samples: tuple[Sample, ...], options: dict[str, Any]) -> Case:
    samples = (*samples, Sample("ties", {"x": _ties(2, 7, 6, 3)}, options))
    return Case(op, samples, _moved(_cells), exact=True, kinked=True)


CASES = (
    MAX_POOL,
    AVG_POOL,
    LP_POOL,
    MAX_UNPOOL,
    _average(ops.adaptive_avg_pool, _ADAPTIVE, {"output_size": 4}),
    _maximum(ops.adaptive_max_pool, _ADAPTIVE, {"output_size": 3}),
    _average(ops.global_avg_pool, _GLOBAL, {}),
    _maximum(ops.global_max_pool, _GLOBAL, {}),
)
