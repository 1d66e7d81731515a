"""Whether an answer is right: parts of it beside the same parts in float64, in units of `parity`'s bound.

A large layer is judged on its first and last image and on channels spread over all of them: those parts follow from
parts of the arrays, so that the truth costs little. The gradient of the weights is a sum over the whole batch, and is
judged between some input and some output channels. Training steps are judged by the losses of the first two, the second
of which depends on every gradient; those of a large network on fewer images. A network's inference is judged by all
outputs for the first and the last image; its truth is computed layer by layer, with no norm folded into weights. An
update is judged by the values that two of them leave.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import ops
from xpconv.backend import use_backend
from xpconv.bench import updates
from xpconv.bench.case import ACTIVATIONS, Case
from xpconv.bench.networks import LARGE, MOMENTUM, judged, loaded, rate
from xpconv.derivatives import vjp
from xpconv.parity import case_of
from xpconv.parity.bounds import NAMED, Truth, error_in_bounds
from xpconv.settings import current, use_engine

# A whole network has no derived bound. Of a loss, relative:
_STEP_TOLERANCE = {"float16": 2e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-4}
# Of an output at inference, relative to the largest of its image: no update makes differences larger there. Right
# answers of LeNet, ResNet-20 and a U-Net were seen 1.4e-3, 1.0e-2 (PyTorch's, on the CPU), 1.7e-6 (2.2e-6 under "fast")
# and 2.5e-15 off.
_ANSWER_TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-5, "float64": 2e-14}
_TOLERANCE_TF32 = 1e-2  # of both
# Of steps of ResNet-50 and MobileNetV2 at their first weights: right answers, PyTorch's on the CPU, were seen 2.3e-3
# off after one update in float32, 8.3e-3 in bfloat16; without the update they would be 1e-1 off.
_LARGE_STEP_TOLERANCE = {"float16": 5e-2, "bfloat16": 5e-2, "float32": 1e-2, "float64": 1e-4}
_UPDATE_ULPS = 8.0  # of a value after two updates
_CANCELLED = 4.0  # of x, in a GELU's y: PyTorch's 1 + erf loses what a small y has left, which xpconv must not
_FAST = 12.0  # the bound's c under precision("fast"): of Winograd with large tiles
_TF32 = 2.0**13  # the unit roundoff of TF32 in those of float32: a GPU's "fast" rounds each factor to it
LOSSES = Path(__file__).parent / "losses.json"
_CHANNELS, _FEW_CHANNELS, _LARGE_BATCH = 16, 4, 32  # of each kind that are looked at; fewer in large batches

Arrays = Mapping[str, np.ndarray]
Expected = dict[str, tuple[Any, Any]]  # of each answer that is judged, the truth and the scale of its error
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
    if layer.op == "inference":
        return [Part({"y": {0: images}}, {"x": {0: images}})]
    if layer.op == "update":
        return [Part(_each([f"p{i}" for i in range(len(updates.shapes(layer)))], {}))]
    if layer.op == "conv":
        most = _FEW_CHANNELS if case.batch > _LARGE_BATCH else _CHANNELS
        found = _conv_parts(layer.parameters["w"], layer.x[-1], layer.options.get("groups", 1), images, most)
    elif layer.op == "batch_norm":
        some = {-1: _spread(layer.x[-1], _CHANNELS)}
        found = [Part(_each(("y", "dx", "dgamma", "dbeta"), some), _each(("x", "gamma", "beta", "dy"), some))]
    elif layer.op in ("max_pool", "global_avg_pool", "resize", "pad", "local_response_norm", *ACTIVATIONS):
        found = [Part(_each(("y", "dx"), {0: images}), _each(("x", "dy"), {0: images}))]
    else:
        found = [Part(_each(("y", "dx", "dw", "db", "dgamma", "dbeta", "dslope", "dlogits"), {}))]
    forward = case.direction in ("forward", "fused")
    wanted = [
        replace(part, answers={name: take for name, take in part.answers.items() if (name == "y") == forward})
        for part in found
    ]
    return [part for part in wanted if part.answers]


def _each(names: Sequence[str], take: Mapping[int, np.ndarray]) -> Takes:
    return dict.fromkeys(names, take)


def _conv_parts(w: tuple[int, ...], channels: int, groups: int, images: np.ndarray, most: int) -> list[Part]:
    some_in, some_out = _spread(channels, most), _spread(w[-1], most)
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
    some = _spread(groups, most)
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


def taken(arrays: Arrays, takes: Takes) -> dict[str, np.ndarray]:
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


def judge(case: Case, arrays: Arrays, answered: list[dict[str, np.ndarray]]) -> float:
    """The largest error of what `extract` gave, in units of the bound: above 1 is wrong."""
    tf32 = current().precision == "fast" and case.dtype == "float32" and current().backend.startswith("cupy")
    c = NAMED if current().precision == "ieee" else NAMED * _TF32 if tf32 else _FAST
    truths = _truths(case, arrays)
    with np.errstate(all="ignore"):
        if case.layer.op == "step":
            off = np.abs(answered[0]["losses"] / truths[0]["losses"][0] - 1)
            return float(np.max(np.nan_to_num(off, nan=np.inf)) / _tolerance(case, tf32))
        if case.layer.op == "update":
            return max(_off(answered[0].get(name), *pair) for name, pair in truths[0].items())
        if case.layer.op == "inference":
            true, largest = truths[0]["y"]
            return _off(answered[0].get("y"), true, _tolerance(case, tf32) * largest)
        return max(
            _error(case, answers.get(name), *pair, c)
            for expected, answers in zip(truths, answered, strict=True)
            for name, pair in expected.items()
        )


_last: tuple[Any, list[Expected]] = (None, [])  # every side is judged by the same arrays: of these, and their truths


def _truths(case: Case, arrays: Arrays) -> list[Expected]:
    """What is right of each part; found once for all who are judged by it."""
    global _last
    if _last[0] is not arrays:
        with np.errstate(all="ignore"), use_backend("numpy"), use_engine("portable"):
            _last = arrays, [_expected(case, part, arrays) for part in parts(case)]
    return _last[1]


def _expected(case: Case, part: Part, arrays: Arrays) -> Expected:
    if case.layer.op == "step":
        before = _known_losses().get(digest(case, arrays))
        return {"losses": (losses(case, arrays) if before is None else np.asarray(before["losses"]), None)}
    if case.layer.op == "update":
        return {name: _updated(true, arrays[name]) for name, true in updates.truth(case.layer, arrays).items()}
    if case.layer.op == "inference":
        return {"y": _answer(case, taken(arrays, part.arrays))}
    inputs: dict[str, Any] = {name: _double(x) for name, x in taken(arrays, part.arrays).items()}
    dy, known = inputs.pop("dy"), case_of(case.layer.op)
    options = {**case.options, **part.options}
    y, pullback = vjp(known.op, **inputs, **options)
    grads = pullback(dy)
    scales = known.scales(Truth(known.op, inputs, options, case.dtype, y, dy, grads))
    of_y = 0.0 if known.exact else scales.y
    if case.layer.op == "gelu":
        of_y = of_y + _CANCELLED * np.abs(inputs["x"])
    expected = {"y": (y, of_y)}
    for name, gradient, scale in zip(inputs, grads, scales.grads, strict=False):
        expected[f"d{name}"] = (gradient, scale)
    return {name: pair for name, pair in expected.items() if name in part.answers and pair[0] is not None}


def _error(case: Case, got: np.ndarray | None, true: Any, scale: Any, c: float) -> float:
    wrong = got is None or got.shape != true.shape
    return float("inf") if wrong else error_in_bounds(_double(got), true, scale, case.dtype, c)


def _updated(true: np.ndarray, before: np.ndarray) -> tuple[Any, Any]:
    """A value after updates, and its permitted error."""
    return true, _UPDATE_ULPS * np.finfo("float32").eps * (np.abs(true) + np.abs(true - before))


def _answer(case: Case, arrays: Arrays) -> tuple[Any, Any]:
    """What a network answers, and the largest output of each image."""
    net = loaded(case.layer.options["model"], arrays).to(dtype="float64")
    y, _ = net.vjp(_double(arrays["x"]), training=False, needs_input=False)  # which folds nothing
    return y, np.max(np.abs(y), axis=tuple(range(1, y.ndim)), keepdims=True)


def _off(got: np.ndarray | None, true: Any, permitted: Any) -> float:
    """The largest error of a value, in units of what is permitted."""
    if got is None or got.shape != true.shape:
        return float("inf")
    return float(np.max(np.nan_to_num(np.abs(got - true) / permitted, nan=np.inf)))


def _tolerance(case: Case, tf32: bool) -> float:
    """Of a whole network."""
    if case.layer.op == "inference":
        return _TOLERANCE_TF32 if tf32 else _ANSWER_TOLERANCE[case.dtype]
    if case.layer.options["model"] in LARGE:
        return _LARGE_STEP_TOLERANCE[case.dtype]
    return _TOLERANCE_TF32 if tf32 else _STEP_TOLERANCE[case.dtype]


def _double(x: Any) -> Any:
    wide = {"f": "float64", "c": "complex128"}.get(x.dtype.kind)
    return x if wide is None else x.astype(wide)


def digest(case: Case, arrays: Arrays) -> str:
    """A name for all that the losses of a network's steps follow from."""
    model, images = case.layer.options["model"], judged(case.layer, case.batch)
    found = hashlib.sha256(f"{model} {images} {rate(model)}".encode())
    for name in sorted(arrays):
        found.update(np.ascontiguousarray(arrays[name][:images] if name in ("x", "labels") else arrays[name]).data)
    return found.hexdigest()[:32]


@functools.cache
def _known_losses() -> dict[str, dict[str, Any]]:
    """Losses by `digest`, of networks for which they take minutes (`bench/losses.py` wrote them)."""
    return json.loads(LOSSES.read_text(encoding="utf-8")) if LOSSES.exists() else {}


def losses(case: Case, arrays: Arrays) -> np.ndarray:
    """Of the first two steps, in float64."""
    from xpconv import train

    images = judged(case.layer, case.batch)
    net = loaded(case.layer.options["model"], arrays).to(dtype="float64")
    x, labels = arrays["x"][:images].astype("float64"), arrays["labels"][:images]
    optimizer, found = train.SGD(rate(case.layer.options["model"]), momentum=MOMENTUM), []
    for _ in range(2):
        net.zero_grad()
        logits, pullback = net.vjp(x, needs_input=False)
        loss, slope = vjp(ops.softmax_cross_entropy, logits, labels, needs=(True, False))
        pullback(slope(np.ones(()))[0])
        optimizer.step(net.parameters())
        found.append(float(loss))
    return np.asarray(found)
