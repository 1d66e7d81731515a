"""Everything that must hold of an op on a target: near where numbers are rounded, exact where they are not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.backend import library, to_numpy
from xpconv.errors import dtype_name
from xpconv.kinds import is_inexact
from xpconv.parity.measure import Answer, answer, cotangent, errors_of, serves, truth
from xpconv.parity.sample import NANS, Case, Sample
from xpconv.parity.targets import Target, dtypes
from xpconv.settings import deterministic

_FILLS = ("random", "constant")  # constant data are the hardest on long sums; the tests try more


@dataclass
class Worst:
    """The largest error of a direction, in units of the bound, and the call that it came from."""

    error: float = 0.0
    where: str = ""

    def meet(self, error: float, where: str) -> None:
        """Take note of another error; nan is the worst."""
        if error > self.error or math.isnan(error):
            self.error, self.where = error, where


@dataclass
class Row:
    """An op on a target: errors of its forward pass and gradients by dtype, and what else is wrong."""

    target: Target
    op: str
    calls: int = 0
    declined: int = 0  # calls that the engine takes no part in
    forward: dict[str, Worst] = field(default_factory=lambda: defaultdict(Worst))
    gradient: dict[str, Worst] = field(default_factory=lambda: defaultdict(Worst))
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every error lies within the bound, and nothing else is wrong."""
        worst = [*self.forward.values(), *self.gradient.values()]
        return not self.faults and all(w.error <= 1 for w in worst)

    def misses(self) -> list[str]:
        """What is wrong, in words."""
        words = [
            f"{direction} {dtype}: {worst.error:.3g} times the bound ({worst.where})"
            for direction, errors in (("forward", self.forward), ("gradient", self.gradient))
            for dtype, worst in errors.items()
            if not worst.error <= 1
        ]
        return words + self.faults

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data; JSON has no infinity, so that one is a word."""
        errors = {
            direction: {dtype: {"error": _number(w.error), "where": w.where} for dtype, w in worst.items()}
            for direction, worst in (("forward", self.forward), ("gradient", self.gradient))
        }
        about = {"target": self.target.name, "op": self.op, "calls": self.calls, "declined": self.declined}
        return {**about, **errors, "faults": self.faults, "ok": self.ok}


def _number(error: float) -> float | str:
    return float(f"{error:.4g}") if math.isfinite(error) else str(error)


def check(target: Target, case: Case, on_next: Callable[[str], None] = lambda name: None) -> Row:
    """Run every sample of an op on a target, in every dtype, and tell of each before; an exception is a fault."""
    row = Row(target, case.name)
    with np.errstate(all="ignore"):
        for dtype in dtypes(target):
            for sample in case.samples:
                on_next(f"{dtype}, {sample.name}")
                if not _complex(sample) or dtype in ("float32", "float64"):
                    _check_calls(row, case, sample, dtype)
    return row


def _check_calls(row: Row, case: Case, sample: Sample, dtype: str) -> None:
    """A sample in one dtype, filled in each way."""
    try:
        if not serves(case, sample, row.target, dtype):
            row.declined += 1
            return
    except Exception as error:
        row.faults.append(f"{sample.name}, {dtype}: {short(error)}")
        return
    fills = _FILLS if sample.fills and dtype != "float64" else _FILLS[:1]
    # Where a nan shows is exact for what selects numbers; a sum may spread it.
    for fill in (*fills, *((NANS,) if sample.fills and case.exact else ())):
        where = sample.name if fill == "random" else f"{sample.name}, {fill} data"
        try:
            row.calls += 1
            got = answer(case, sample, row.target, dtype, fill)
            for name, found in errors_of(got, case, sample, dtype, fill).items():
                direction = row.gradient if name.startswith("d") else row.forward
                direction[dtype].meet(found, f"{name}, {where}")
            faults = [*_faults(got, case, sample, dtype, fill)]
            if fill == "random":
                faults += _unsteady(row.target, case, sample, dtype)
        except Exception as error:  # a report of every op is worth more than the first failure
            faults = [short(error)]
        row.faults += [f"{where}, {dtype}: {fault}" for fault in faults]


def _faults(got: Answer, case: Case, sample: Sample, dtype: str, fill: str) -> Iterator[str]:
    """What is exact: dtypes, shapes, the arrays' library and device, and that nothing given was written to."""
    true = truth(case, sample, dtype, fill)
    anchor = next(x for x in got.arrays.values() if x is not None)
    y, named = got.results[0], dict(zip(got.arrays, got.grads, strict=False))
    kept = dtype_name(anchor.dtype) if true.y.dtype.kind in "fc" else true.y.dtype.name
    if (dtype_name(y.dtype), tuple(y.shape)) != (kept, true.y.shape):
        yield f"y is {dtype_name(y.dtype)} {tuple(y.shape)}, not {kept} {true.y.shape}"
    for name, gradient in named.items():
        x = got.arrays[name]
        if (gradient is not None) != (x is not None and is_inexact(x)):
            yield f"d{name} is {'missing' if gradient is None else 'there'}"
        elif gradient is not None and (gradient.dtype, tuple(gradient.shape)) != (x.dtype, tuple(x.shape)):
            yield f"d{name} is {dtype_name(gradient.dtype)} {tuple(gradient.shape)}, unlike {name}"
    for result in (*got.results, *(g for g in got.grads if g is not None)):
        if (library(result), result.device) != (library(anchor), anchor.device):
            yield f"a result of {library(result)} on {result.device}, from arrays on {anchor.device}"
    drawn = sample.draw(fill, dtype)
    drawn_dy = cotangent(sample, tuple(y.shape), dtype_name(y.dtype))
    for name, x, before in [*((n, x, drawn[n]) for n, x in got.arrays.items()), ("dy", got.dy, drawn_dy)]:
        if x is not None and not _same(x, before):
            yield f"{name} was written to"


def _unsteady(target: Target, case: Case, sample: Sample, dtype: str) -> Iterator[str]:
    """Results that differ between two runs where the same bits were asked for."""
    with deterministic(True):
        first, second = (answer(case, sample, target, dtype) for _ in range(2))
    names = [*(f"result {i}" if i else "y" for i in range(len(first.results))), *(f"d{n}" for n in first.arrays)]
    pairs = zip((*first.results, *first.grads), (*second.results, *second.grads), strict=True)
    for name, (a, b) in zip(names, pairs, strict=False):
        if a is not None and not _same(a, to_numpy(b)):
            yield f"{name} differs from run to run under deterministic"


def _same(x: Any, host: np.ndarray) -> bool:
    """Whether an array holds the numbers of one of the host, nan among them."""
    values = to_numpy(x)
    return np.array_equal(values.astype(host.dtype), host, equal_nan=host.dtype.kind in "fc")


def _complex(sample: Sample) -> bool:
    return any(x is not None and x.dtype.kind == "c" for x in sample.draw().values())


def short(error: Exception) -> str:
    """The kind and first line of an exception."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
