"""Samples of the normalisations, with offsets that a careless variance would drown in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.parity.bounds import Scales, Truth, ulps
from xpconv.parity.sample import Case, Sample, Spec

_SHAPE = (4, 5, 6, 8)
_OF_THE_BATCH: dict[str, Spec] = {"mean": None, "var": None}


def _offset(*shape: int) -> Spec:
    return lambda rng: rng.standard_normal(shape) + 30.0


def _positive(*shape: int) -> Spec:
    return lambda rng: rng.random(shape) + 0.5


def _small(*shape: int) -> Spec:
    return lambda rng: 0.05 * rng.standard_normal(shape)


def _affine(x: tuple[int, ...], parameters: tuple[int, ...]) -> dict[str, Spec]:
    return {"x": x, "gamma": parameters, "beta": parameters}


# How each op sees x: its shape, the axes it averages over, and the shape of gamma beside it.
View = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _batch(truth: Truth) -> View:
    x = truth.arrays["x"]
    return x.shape, tuple(range(x.ndim - 1)), x.shape[-1:]


def _layer(truth: Truth) -> View:
    x, axes = truth.arrays["x"], truth.options.get("axes", -1)
    over = tuple(axis % x.ndim for axis in (axes if isinstance(axes, tuple) else (axes,)))
    return x.shape, over, tuple(n if axis in over else 1 for axis, n in enumerate(x.shape))


def _instance(truth: Truth) -> View:
    x = truth.arrays["x"]
    return x.shape, tuple(range(1, x.ndim - 1)), x.shape[-1:]


def _group(truth: Truth) -> View:
    x, groups = truth.arrays["x"], truth.options["num_groups"]
    split = (groups, x.shape[-1] // groups)
    return (*x.shape[:-1], *split), (*range(1, x.ndim - 1), x.ndim), split


def _scales(view: Callable[[Truth], View]) -> Callable[[Truth], Scales]:
    """|gamma| · |x̂|max + |beta| for y, and the like for the gradients, times a few ulps and the roots of long sums."""

    def scales(truth: Truth) -> Scales:
        arrays = truth.arrays
        if not arrays["x"].size:
            return Scales(0.0, (0.0,) * len(truth.grads))
        shape, axes, parameters = view(truth)
        x, dy = arrays["x"].reshape(shape), np.abs(truth.dy).reshape(shape)
        if truth.options.get("activation"):
            dy = dy * (1 + np.abs(truth.y).max())  # its slope is taken where y is not exact
        if arrays.get("mean") is None:
            mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        else:
            mean, var = arrays["mean"], arrays["var"]
        gamma, beta = (
            np.zeros(1) + neutral if arrays.get(name) is None else np.abs(arrays[name]).reshape(parameters)
            for name, neutral in (("gamma", 1.0), ("beta", 0.0))
        )
        rstd = 1 / np.sqrt(var + 1e-5)
        hat = np.abs(x - mean) * rstd
        peak = 1 + hat.max()
        others = tuple(i for i, n in enumerate((1,) * (x.ndim - len(parameters)) + parameters) if n == 1)
        root = np.sqrt(max(x.size / rstd.size, x.size / max(np.size(gamma), 1)))

        def total(terms: Any) -> Any:
            return root * np.sum(terms, axis=others)

        dx = rstd * peak * (gamma * dy + np.mean(gamma * dy * (1 + hat), axis=axes, keepdims=True))
        side = 0.0 if arrays.get("residual") is None else np.abs(arrays["residual"])
        y = gamma * peak + beta + side + 0 * x
        grads = {
            "x": dx.reshape(arrays["x"].shape),
            "gamma": total(dy * peak),
            "beta": total(dy),
            "mean": total(gamma * rstd * dy),
            "var": total(gamma * rstd**2 * dy * peak),
            "residual": dy,
        }
        given = (_fitted(grads[name], arrays[name]) for name in arrays)
        return Scales(4 * y.reshape(arrays["x"].shape), tuple(None if g is None else 4 * g for g in given))

    return scales


def _fitted(scale: Any, x: Any) -> Any:
    return None if x is None else np.broadcast_to(scale.reshape(x.shape) if scale.size == x.size else scale, x.shape)


CASES = (
    Case(
        ops.batch_norm,
        (
            Sample("images", _affine(_SHAPE, (8,))),
            Sample("rows", _affine((9, 5), (5,))),
            Sample("neither gamma nor beta", {"x": _SHAPE, "gamma": None, "beta": None}),
            Sample("an offset", {"x": _offset(6, 40, 3), "gamma": (3,), "beta": (3,)}),
            Sample("with its statistics", _affine(_SHAPE, (8,)), {"return_stats": True}),
            Sample(
                "given statistics",
                {"x": _SHAPE, "gamma": (8,), "beta": (8,), "mean": (8,), "var": _positive(8)},
            ),
            Sample("relu", {"x": _SHAPE, "gamma": (8,), "beta": _small(8)}, {"activation": "relu"}, fills=False),
            Sample("relu6, and its statistics", _affine((50, 3), (3,)), {"activation": "relu6", "return_stats": True}),
            Sample("silu, no beta", {"x": _SHAPE, "gamma": (8,), "beta": None}, {"activation": "silu"}),
            Sample(
                "tanh, given statistics",
                {"x": _SHAPE, "gamma": (8,), "beta": (8,), "mean": (8,), "var": _positive(8)},
                {"activation": "tanh"},
            ),
            Sample("residual", {**_affine(_SHAPE, (8,)), **_OF_THE_BATCH, "residual": _SHAPE}),
            Sample(
                "relu of a sum",
                {"x": _SHAPE, "gamma": (8,), "beta": _small(8), **_OF_THE_BATCH, "residual": _positive(*_SHAPE)},
                {"activation": "relu", "return_stats": True},
                fills=False,
            ),
            Sample(
                "silu of a sum, given statistics",
                {"x": (50, 3), "gamma": None, "beta": (3,), "mean": (3,), "var": _positive(3), "residual": (50, 3)},
                {"activation": "silu"},
            ),
            Sample(
                "tanh of a sum",
                {**_affine((300, 3), (3,)), **_OF_THE_BATCH, "residual": (300, 3)},
                {"activation": "tanh"},
            ),
            Sample("one row", _affine((1, 5), (5,))),
            Sample("many rows", _affine((3000, 3), (3,))),
            Sample("empty batch", _affine((0, 4, 3), (3,))),
        ),
        _scales(_batch),
    ),
    Case(
        ops.layer_norm,
        (
            Sample("channels", _affine(_SHAPE, (8,))),
            Sample("long rows", _affine((3, 700), (700,))),
            Sample("images", {"x": _SHAPE}, {"axes": (1, 2, 3)}),
            Sample("an offset", {"x": _offset(6, 40), "gamma": (40,)}),
            Sample("axes apart", _affine((3, 4, 5, 6), (4, 6)), {"axes": (1, 3)}),
            Sample("empty batch", _affine((0, 4, 3), (3,))),
        ),
        _scales(_layer),
    ),
    Case(
        ops.instance_norm,
        (
            Sample("2-D", _affine(_SHAPE, (8,))),
            Sample("1-D, long", {"x": (2, 500, 3)}),
            Sample("3-D, an offset", {"x": _offset(2, 3, 4, 5, 3), "gamma": (3,), "beta": (3,)}),
            Sample("empty batch", _affine((0, 4, 3), (3,))),
        ),
        _scales(_instance),
    ),
    Case(
        ops.group_norm,
        (
            Sample("4 groups", _affine(_SHAPE, (8,)), {"num_groups": 4}),
            Sample("one group, an offset", {"x": _offset(2, 30, 6), "gamma": None, "beta": (6,)}, {"num_groups": 1}),
            Sample("rows", _affine((5, 6), (6,)), {"num_groups": 2}),
            Sample("64 channels, an offset", {"x": _offset(2, 150, 64), "gamma": (64,)}, {"num_groups": 4}),
            Sample("empty batch", _affine((0, 4, 6), (6,)), {"num_groups": 3}),
        ),
        _scales(_group),
    ),
    Case(
        ops.local_response_norm,
        (
            Sample("5 of 8", {"x": _SHAPE}, {"size": 5, "alpha": 0.5}),
            Sample("even size", {"x": _SHAPE}, {"size": 4, "alpha": 2.0, "beta": 0.5, "k": 2.0}),
            Sample("more than there are", {"x": (3, 5, 6)}, {"size": 40, "alpha": 4.0}),
            Sample("odd channels, many rows", {"x": (2, 40, 33)}, {"size": 6, "alpha": 3.0, "beta": 1.0, "k": 2.0}),
            Sample("empty batch", {"x": (0, 5, 6)}, {"size": 3}),
        ),
        ulps(32),
    ),
)
