"""What is to be measured, and what it came to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from xpconv.bench import steady
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
    tries: int = 3  # how often a row is measured at most, where its times disagree


@dataclass
class Outcome:
    """What one side did with a case: seconds of every call, turn by turn, by candidate; or why there are none."""

    failed: str = ""
    absent: str = ""
    turns: dict[str, list[list[float]]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # in units of the bound, by candidate; above 1 has no turns
    note: str = ""
    memory: int | None = None  # bytes that forward and backward take at their peak
    host: dict[str, list[float]] = field(default_factory=dict)  # seconds of the host for each call, beside a device
    tick: float = 0.0  # seconds between two of the scheduler that the calls were at the mercy of; 0: unknown, or none

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return not (self.failed or self.absent)

    @property
    def times(self) -> dict[str, list[float]]:
        """Seconds of every call by candidate."""
        return {name: [*chain.from_iterable(turns)] for name, turns in self.turns.items()}

    @property
    def best(self) -> str:
        """The candidate with the least median."""
        medians = {name: statistics.median(taken) for name, taken in self.times.items()}
        return min(medians, key=lambda name: medians[name])

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
    def unsteady(self) -> tuple[float, float] | None:
        """Where its times disagree by `steady`'s rule, seconds of the fastest call and of the slowest turn that counts.

        Of every candidate that has been faster than the best one's median: it might be the best.
        """
        best = self.seconds
        if best is None:
            return None
        found = [steady.reach(turns) for turns in self.turns.values() if steady.unsteady(turns, self.tick)]
        might_be_best = [reach for reach in found if reach[0] <= best]
        return max(might_be_best, key=lambda reach: reach[1] / reach[0], default=None)

    def joined(self, later: Outcome) -> Outcome:
        """This, and what the same side did when it was measured again: all turns count, and wrong once is wrong."""
        if not (self.timed and later.timed):
            return later if self.timed else self
        errors = {name: max(error, later.errors.get(name, error)) for name, error in self.errors.items()}
        turns = {name: [*found, *later.turns[name]] for name, found in self.turns.items() if name in later.turns}
        if not turns:
            return Outcome(failed=refusal(errors), errors=errors)
        host = {name: [*self.host.get(name, []), *later.host.get(name, [])] for name in turns if name in self.host}
        return replace(self, turns=turns, errors=errors, host=host)

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
    tries: int = 1  # how often it was measured

    @property
    def failed(self) -> bool:
        """Whether any side did."""
        return any(outcome.failed for outcome in self.sides.values())

    @property
    def unsteady(self) -> bool:
        """Whether the times of any side disagree."""
        return any(outcome.unsteady for outcome in self.sides.values())

    def doubtful(self, peer: str) -> bool:
        """Whether the times that `ratio` is of disagree, on either side."""
        return any(self.sides[name].unsteady for name in (OURS, peer))

    def join(self, again: dict[str, Outcome]) -> None:
        """Count what the sides did when the row was measured again, too."""
        self.sides |= {name: self.sides[name].joined(outcome) for name, outcome in again.items()}
        self.tries += 1

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


def worth_another_try(plan: Plan, result: Result) -> list[Row]:
    """The rows of the plan's cases that are unsteady, and were not measured as often as they may be."""
    asked = {case.name for case in plan.cases}
    return [row for row in result.rows if row.tries < plan.tries and row.case.name in asked and row.unsteady]


def refusal(errors: dict[str, float]) -> str:
    """Which candidates answered wrongly, and by how much; nothing where none did."""
    wrong = [f"{name} {error:.3g}" for name, error in errors.items() if not error <= 1]
    return f"wrong answer, in units of the permitted error: {', '.join(wrong)}" if wrong else ""
