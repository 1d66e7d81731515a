"""What is to be measured, and what it came to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xpconv.bench.case import Case

OURS = "xpconv"


@dataclass(frozen=True)
class Plan:
    """What is to be measured, beside what, and how often each side has its turn."""

    cases: Sequence[Case]
    peers: Sequence[str] = ()
    rounds: int = 5
    memory: bool = False
    dtype: str = "float32"


@dataclass
class Outcome:
    """What one side did with a case: seconds of every call by candidate, or why there are none."""

    failed: str = ""
    absent: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # in units of the bound, by candidate; above 1 has no times
    note: str = ""
    memory: int | None = None  # bytes that forward and backward take at their peak
    host: dict[str, list[float]] = field(default_factory=dict)  # seconds of the host for each call, beside a device

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return not (self.failed or self.absent)

    @property
    def best(self) -> str:
        """The candidate with the least median."""
        return min(self.times, key=lambda name: statistics.median(self.times[name]))

    @property
    def seconds(self) -> float | None:
        """The median of the best candidate."""
        return statistics.median(self.times[self.best]) if self.timed else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The first and the third, of the best candidate's seconds."""
        taken = self.times[self.best] if self.timed else []
        if len(taken) < 2:
            return (taken[0], taken[0]) if taken else None
        first, _, third = statistics.quantiles(taken, n=4, method="inclusive")
        return first, third

    @property
    def host_seconds(self) -> float | None:
        """The median that the host needs to hand the best candidate's call to a device."""
        taken = self.host.get(self.best) if self.timed else None
        return statistics.median(taken) if taken else None

    @property
    def error(self) -> float | None:
        """Of the best candidate."""
        return self.errors[self.best] if self.timed else None


@dataclass
class Row:
    """A case with each side's outcome."""

    case: Case
    sides: dict[str, Outcome]

    @property
    def failed(self) -> bool:
        """Whether any side did."""
        return any(outcome.failed for outcome in self.sides.values())

    def ratio(self, peer: str) -> float | None:
        """The peer's time over xpconv's: above 1, xpconv is faster; `None` where either failed."""
        ours, theirs = self.sides[OURS].seconds, self.sides[peer].seconds
        return theirs / ours if ours and theirs else None


@dataclass
class Result:
    """All that was measured: by one run, or by several that went on where the one before had stopped."""

    plan: Plan
    ceiling: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    wanted: Sequence[str] = ()  # names of rows that were asked for, by an earlier run too
    interrupted: bool = False

    @property
    def missing(self) -> list[str]:
        """Names of the rows that were asked for and are not there."""
        there = {row.case.name for row in self.rows}
        return [name for name in dict.fromkeys([*self.wanted, *(c.name for c in self.plan.cases)]) if name not in there]

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        return not self.missing


def still_to_do(cases: Sequence[Case], result: Result | None) -> list[Case]:
    """The cases that have no row, or one in which a side failed."""
    done = {row.case.name for row in result.rows if not row.failed} if result is not None else set()
    return [case for case in cases if case.name not in done]


def refusal(errors: dict[str, float]) -> str:
    """Which candidates answered wrongly, and by how much; nothing where none did."""
    wrong = [f"{name} {error:.3g}" for name, error in errors.items() if not error <= 1]
    return f"wrong answer, in units of the permitted error: {', '.join(wrong)}" if wrong else ""
