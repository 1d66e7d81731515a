"""One call on one target, beside the truth."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv import backend
from xpconv.derivatives import vjp
from xpconv.dispatch import explain
from xpconv.errors import dtype_name
from xpconv.parity.bounds import NAMED, Scales, Truth, error_in_bounds
from xpconv.parity.sample import Case, Sample, rounded
from xpconv.parity.targets import Target
from xpconv.settings import TOTAL, use_engine


@dataclass(frozen=True)
class Answer:
    """What a target answered, still on the target."""

    arrays: dict[str, Any]
    results: tuple[Any, ...]  # y, and what else the op returns
    dy: Any
    grads: tuple[Any, ...]


def serves(case: Case, sample: Sample, target: Target, dtype: str = "float32") -> bool:
    """Whether the target's engine takes part in the call; one that is not total declines some."""
    if target.engine in TOTAL:
        return True
    arrays = {name: placed(target, x, dtype) for name, x in sample.draw("random", dtype).items()}
    with use_engine(*target.chain):
        return explain(case.op, **arrays, **sample.options)[target.engine].startswith("chosen: ")


def answer(case: Case, sample: Sample, target: Target, dtype: str, fill: str = "random") -> Answer:
    """Make the call and pull its gradients back."""
    arrays = {name: placed(target, x, dtype) for name, x in sample.draw(fill, dtype).items()}
    with use_engine(*target.chain):
        y, pullback = vjp(case.op, **arrays, **sample.options)
        results = y if isinstance(y, tuple) else (y,)
        dy = placed(target, cotangent(sample, results[0].shape, dtype_name(results[0].dtype)), dtype)
        return Answer(arrays, results, dy, pullback(dy))


def placed(target: Target, x: Any, dtype: str) -> Any:
    """An array of the host on the target; NumPy has no bfloat16, so that its numbers come in float32."""
    if x is None:
        return None
    return backend.get(target.backend).asarray(x, dtype if dtype == "bfloat16" and x.dtype.kind == "f" else None)


@functools.lru_cache(maxsize=4096)  # more than there are calls: every target asks for the same ones
def _truth(case_name: str, sample_name: str, dtype: str, fill: str) -> tuple[Truth, tuple[Any, ...]]:
    from xpconv.parity.cases import case_of

    case = case_of(case_name)
    sample = next(s for s in case.samples if s.name == sample_name)
    arrays = {name: rounded(x, "float64") for name, x in sample.draw(fill, dtype).items()}
    with use_engine("reference"), np.errstate(all="ignore"):
        y, pullback = vjp(case.op, **arrays, **sample.options)
        results = y if isinstance(y, tuple) else (y,)
        like = dtype if results[0].dtype.kind == "f" else results[0].dtype.name
        dy = cotangent(sample, results[0].shape, like).astype(results[0].dtype)
        return Truth(case.op, arrays, sample.options, dtype, results[0], dy, pullback(dy)), results


@functools.lru_cache(maxsize=4096)
def _scales(case_name: str, sample_name: str, dtype: str, fill: str) -> Scales:
    """Of the permitted errors, by the engine that is quickest on the host."""
    from xpconv.parity.cases import case_of

    with use_engine("auto"), np.errstate(all="ignore"):
        return case_of(case_name).scales(_truth(case_name, sample_name, dtype, fill)[0])


def truth(case: Case, sample: Sample, dtype: str = "float64", fill: str = "random") -> Truth:
    """The call in float64 on the reference engine, from the arrays as ``dtype`` holds them."""
    return _truth(case.name, sample.name, dtype, fill)[0]


def measure(
    case: Case, sample: Sample, target: Target, dtype: str = "float32", fill: str = "random", c: float = NAMED
) -> dict[str, float]:
    """Errors in units of the bound: of y, of further results, and of each gradient by its array's name."""
    return errors_of(answer(case, sample, target, dtype, fill), case, sample, dtype, fill, c)


def errors_of(got: Answer, case: Case, sample: Sample, dtype: str, fill: str, c: float = NAMED) -> dict[str, float]:
    """`measure`, of an answer that is there."""
    true, results = _truth(case.name, sample.name, dtype, fill)
    scales = _scales(case.name, sample.name, dtype, fill)
    scale = 0.0 if case.exact else scales.y
    errors = {"y": _error(got.results[0], true.y, scale, c)}
    for i, (extra, expected) in enumerate(zip(got.results[1:], results[1:], strict=True), 1):
        # Statistics: sums over the batch, on the scale of the largest.
        root = np.sqrt(true.y.size / max(expected.size, 1))
        errors[f"result {i}"] = _error(extra, expected, root * np.abs(expected).max(initial=1.0), c)
    for name, gradient, expected, scale in zip(got.arrays, got.grads, true.grads, scales.grads, strict=False):
        if (gradient is None) != (expected is None):
            errors[f"d{name}"] = float("inf")
        elif gradient is not None:
            errors[f"d{name}"] = _error(gradient, expected, scale, c)
    return errors


def _error(got: Any, true: Any, scale: Any, c: float) -> float:
    name, host = dtype_name(got.dtype), backend.to_numpy(got)
    if host.shape != true.shape:
        return float("inf")
    if host.dtype.kind in "iub":
        return 0.0 if np.array_equal(host, true) else float("inf")
    return error_in_bounds(host.astype(true.dtype), true, scale, name, c)


def cotangent(sample: Sample, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A dy for a result of that shape; the same every time."""
    rng = np.random.default_rng(len(sample.name))
    values = rng.standard_normal(tuple(shape))
    if dtype.startswith("complex"):
        return (values + 1j * rng.standard_normal(tuple(shape))).astype(dtype)
    return rounded(values, dtype) if "float" in dtype else values
