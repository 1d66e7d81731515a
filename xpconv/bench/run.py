"""The measurement: every case on every side, in turns, and what it comes to."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from xpconv.bench.case import Case
from xpconv.bench.process import AbsentError, Process, SideError
from xpconv.bench.truth import judge
from xpconv.settings import current

OURS = "xpconv"
_TURN = 0.06  # seconds of calls in one turn
_SETTLE = 0.03  # seconds before a turn, in which the threads of the side before go to sleep

Sides = dict[str, Process]


@dataclass(frozen=True)
class Plan:
    """What is to be measured, beside what, and how often each side has its turn."""

    cases: Sequence[Case]
    peers: Sequence[str] = ()
    rounds: int = 5
    memory: bool = False


@dataclass
class Outcome:
    """What one side did with a case: seconds of every call by candidate, or why there are none."""

    failed: str = ""
    absent: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # in units of the bound, by candidate; above 1 has no times
    note: str = ""
    memory: int | None = None  # bytes that forward and backward take at their peak

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
    def error(self) -> float | None:
        """Of the best candidate."""
        return self.errors[self.best] if self.timed else None


@dataclass
class Row:
    """A case with each side's outcome."""

    case: Case
    sides: dict[str, Outcome]

    def ratio(self, peer: str) -> float | None:
        """The peer's time over xpconv's: above 1, xpconv is faster; `None` where either failed."""
        ours, theirs = self.sides[OURS].seconds, self.sides[peer].seconds
        return theirs / ours if ours and theirs else None


@dataclass
class Result:
    """All that was measured; not complete where Ctrl-C came first."""

    plan: Plan
    ceiling: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    complete: bool = False


def measure(plan: Plan, on_row: Callable[[Result, Row], None], on_case: Callable[[Case], None]) -> Result:
    """Measure a plan under the settings in force.

    Parameters
    ----------
    plan : Plan
    on_row : function of (result, row)
        Called with each finished row.
    on_case : function of case
        Called before each.

    Returns
    -------
    Result
        A KeyboardInterrupt ends it early: what was measured is kept.
    """
    result = Result(plan)
    with _processes((OURS, *plan.peers)) as sides:
        try:
            result.ceiling = _or_reason(sides[OURS], "ceiling")
            for process in sides.values():
                result.versions |= {k: v for k, v in _or_reason(process, "version").items() if k != "failed"}
            for case in plan.cases:
                on_case(case)
                row = Row(case, _outcomes(case, sides, plan))
                result.rows.append(row)
                on_row(result, row)
            result.complete = True
        except KeyboardInterrupt:
            pass
    return result


@contextmanager
def _processes(names: Sequence[str]) -> Iterator[Sides]:
    """A process for each side, ended with the block."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Process(name, current()))) for name in names}


def _or_reason(process: Process, order: str) -> dict[str, Any]:
    try:
        return process.ask(order)
    except SideError as error:
        return {"failed": str(error)}


def _outcomes(case: Case, sides: Sides, plan: Plan) -> dict[str, Outcome]:
    """Let each side prepare and be judged, then time those that are right, each round beginning with another."""
    arrays = case.arrays()
    outcomes = {name: _prepared(case, arrays, process) for name, process in sides.items()}
    racing = [name for name, outcome in outcomes.items() if outcome.timed]
    for round_ in range(plan.rounds):
        for name in _rotated(racing, round_):
            _turn(sides[name], outcomes[name])
    for name, process in sides.items():
        outcome = outcomes[name]
        if outcome.timed and plan.memory and case.direction != "forward":
            outcome.memory = _memory(case, process.side, outcome.best)
        if outcome.timed:
            process.ask("drop")
    return outcomes


def _prepared(case: Case, arrays: dict[str, Any], process: Process) -> Outcome:
    """What the side offers; a candidate whose answer lies outside the bound is refused a time."""
    try:
        offered = process.ask("prepare", case)
    except AbsentError as why:
        return Outcome(absent=str(why))
    except SideError as why:
        return Outcome(failed=str(why))
    errors = {found["name"]: judge(case, arrays, found["answers"]) for found in offered}
    right = [name for name, error in errors.items() if error <= 1]
    if not right:
        return Outcome(failed=refusal(errors), errors=errors)
    return Outcome(times={name: [] for name in right}, errors=errors, note=offered[0]["note"])


def refusal(errors: dict[str, float]) -> str:
    """Which candidates answered wrongly, and by how much; nothing where none did."""
    wrong = [f"{name} {error:.3g}" for name, error in errors.items() if not error <= 1]
    return f"wrong answer, in units of the permitted error: {', '.join(wrong)}" if wrong else ""


def _rotated(names: list[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return names[by:] + names[:by]


def _turn(process: Process, outcome: Outcome) -> None:
    if not outcome.timed:
        return
    time.sleep(_SETTLE)
    try:
        rounds = process.ask("turn", _TURN, list(outcome.times))
    except SideError as error:
        outcome.failed = str(error)
        return
    for times, more in zip(outcome.times.values(), rounds, strict=True):
        times.extend(more)


def _memory(case: Case, side: str, candidate: str) -> int | None:
    """Of forward and backward together, in a process that has done nothing else."""
    whole = Case(case.layer, case.batch, "both" if case.direction == "backward" else case.direction)
    with closing(Process(side, current())) as process:
        try:
            return process.ask("memory", whole, candidate)
        except SideError:
            return None
