"""Whether an answer is right: parts of it beside the same parts in float64, in units of `parity`'s bound.

A large layer is judged on its first and last image and on channels spread over all of them: those parts follow from
parts of the arrays, so that the truth costs little. The gradient of the weights is a sum over the whole batch, and is
judged between some input and some output channels. Training steps are judged by the losses of the first two, the second
of which depends on every gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import use_backend
from xpconv.bench.case import Case
from xpconv.dispatch import vjp
from xpconv.parity import case_of
from xpconv.parity.bounds import NAMED, Truth, error_in_bounds
from xpconv.settings import current, use_engine

STEP_TOLERANCE = 1e-4  # of a loss, relative: a whole network has no derived bound
_FAST = 12.0  # the bound's c under precision("fast")
_CHANNELS = 16  # of each kind that are looked at

Takes = Mapping[str, Mapping[int, np.ndarray]]  # of each array, indices by axis; an axis without any is taken whole


@dataclass(frozen=True)
class Part:
    """Parts of the arrays that are a small problem of their own, and the parts of the answers that it gives."""

    answers: Takes
    arrays: Takes = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def parts(case: Case) -> list[Part]:
    """What is judged of a case."""
    layer = case.layer
    images = _spread(case.batch, 2)
    if layer.op == "step":
        return [Part({"losses": {}})]
    if layer.op == "conv":
        found = _conv_parts(layer.parameters["w"], layer.x[-1], layer.options.get("groups", 1), images)
    elif layer.op == "batch_norm":
        some = {-1: _spread(layer.x[-1], _CHANNELS)}
        found = [Part(_each(("y", "dx", "dgamma", "dbeta"), some), _each(("x", "gamma", "beta", "dy"), some))]
    elif layer.op in ("max_pool", "global_avg_pool"):
        found = [Part(_each(("y", "dx"), {0: images}), _each(("x", "dy"), {0: images}))]
    else:
        found = [Part(_each(("y", "dx", "dw", "db", "dlogits"), {}))]
    forward = case.direction == "forward"
    wanted = [
        replace(part, answers={name: take for name, take in part.answers.items() if (name == "y") == forward})
        for part in found
    ]
    return [part for part in wanted if part.answers]


def _each(names: Sequence[str], take: Mapping[int, np.ndarray]) -> Takes:
    return dict.fromkeys(names, take)


def _conv_parts(w: tuple[int, ...], channels: int, groups: int, images: np.ndarray) -> list[Part]:
    some_in, some_out = _spread(channels, _CHANNELS), _spread(w[-1], _CHANNELS)
    if groups == 1:
        of_y: Takes = {"x": {0: images}, "w": {-1: some_out}, "b": {-1: some_out}, "dy": {0: images, -1: some_out}}
        of_dx: Takes = {"x": {0: images, -1: some_in}, "w": {-2: some_in}, "dy": {0: images}}
        between = {-2: some_in, -1: some_out}
        of_dw: Takes = {"x": {-1: some_in}, "w": between, "b": {-1: some_out}, "dy": {-1: some_out}}
        return [
            Part({"y": {0: images, -1: some_out}}, of_y),
            Part({"dx": {0: images, -1: some_in}}, of_dx),
            Part({"dw": between, "db": {-1: some_out}}, of_dw),
        ]
    some = _spread(groups, _CHANNELS)
    some_in, some_out = (
        (some[:, None] * size + np.arange(size)).ravel() for size in (channels // groups, w[-1] // groups)
    )
    kept = {"w": {-1: some_out}, "b": {-1: some_out}}
    few: Takes = {"x": {0: images, -1: some_in}, "dy": {0: images, -1: some_out}, **kept}
    every: Takes = {"x": {-1: some_in}, "dy": {-1: some_out}, **kept}
    return [
        Part({"y": {0: images, -1: some_out}, "dx": {0: images, -1: some_in}}, few, {"groups": len(some)}),
        Part({"dw": {-1: some_out}, "db": {-1: some_out}}, every, {"groups": len(some)}),
    ]


def _spread(n: int, most: int) -> np.ndarray:
    """Indices into n things, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def taken(arrays: Mapping[str, np.ndarray], takes: Takes) -> dict[str, np.ndarray]:
    """The parts of some arrays."""
    found = {}
    for name, array in arrays.items():
        for axis, indices in takes.get(name, {}).items():
            array = np.take(array, indices, axis=axis)
        found[name] = np.array(array)
    return found


def extract(case: Case, answers: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The parts of a case's answers that are judged, one after the other."""
    return [taken({k: answers[k] for k in part.answers if k in answers}, part.answers) for part in parts(case)]


def judge(case: Case, arrays: Mapping[str, np.ndarray], answered: list[dict[str, np.ndarray]]) -> float:
    """The largest error of what `extract` gave, in units of the bound: above 1 is wrong."""
    with np.errstate(all="ignore"), use_backend("numpy"), use_engine("portable"):
        if case.layer.op == "step":
            off = np.abs(answered[0]["losses"] / _losses(case, arrays) - 1)
            return float(np.max(np.nan_to_num(off, nan=np.inf)) / STEP_TOLERANCE)
        found = [
            error
            for part, answers in zip(parts(case), answered, strict=True)
            for error in _errors(case, part, arrays, answers)
        ]
    return max(found)


def _errors(case: Case, part: Part, arrays: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> list[float]:
    inputs: dict[str, Any] = {name: _double(x) for name, x in taken(arrays, part.arrays).items()}
    dy, known = inputs.pop("dy"), case_of(case.layer.op)
    options = {**case.layer.options, **part.options}
    y, pullback = vjp(known.op, **inputs, **options)
    grads = pullback(dy)
    scales = known.scales(Truth(known.op, inputs, options, "float32", y, dy, grads))
    expected = {"y": (y, 0.0 if known.exact else scales.y)}
    for name, gradient, scale in zip(inputs, grads, scales.grads, strict=False):
        expected[f"d{name}"] = (gradient, scale)
    c = NAMED if current().precision == "ieee" else _FAST
    errors = []
    for name, (true, scale) in expected.items():
        if name in part.answers and true is not None:
            got = answers.get(name)
            wrong = got is None or got.shape != true.shape
            errors.append(float("inf") if wrong else error_in_bounds(_double(got), true, scale, "float32", c))
    return errors


def _double(x: Any) -> Any:
    return x.astype("float64") if x.dtype.kind == "f" else x


def _losses(case: Case, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of the first two steps, in float64."""
    from xpconv import train
    from xpconv.bench.networks import LR, MOMENTUM, network

    net = network(case.layer.options["model"], arrays["x"]).to(dtype="float64")
    x, optimizer, losses = arrays["x"].astype("float64"), train.SGD(LR, momentum=MOMENTUM), []
    for _ in range(2):
        net.zero_grad()
        logits, pullback = net.vjp(x, needs_input=False)
        loss, slope = vjp(ops.softmax_cross_entropy, logits, arrays["labels"], needs=(True, False))
        pullback(slope(np.ones(()))[0])
        optimizer.step(net.parameters())
        losses.append(float(loss))
    return np.asarray(losses)
