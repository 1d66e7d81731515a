"""The measurement: every case on every side, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from xpconv.bench import facts
from xpconv.bench.candidate import RECORDED
from xpconv.bench.case import Case
from xpconv.bench.process import AbsentError, Process, SideError
from xpconv.bench.result import OURS, Outcome, Plan, Result, Row, refusal, still_to_do, worth_another_try
from xpconv.bench.steady import scheduler_tick
from xpconv.bench.truth import judge
from xpconv.errors import message
from xpconv.settings import current

_TURN = 0.06  # seconds of calls in one turn
_SETTLE = 0.15  # seconds before a turn, in which the threads of the side before go to sleep: OpenBLAS's wait for 0.1

Sides = dict[str, Process]


def measure(
    plan: Plan,
    on_row: Callable[[Result, Row], None],
    on_case: Callable[[Case], None],
    earlier: Result | None = None,
) -> Result:
    """Measure a plan under the settings in force, rows that are unsteady more than once.

    Parameters
    ----------
    plan : Plan
    on_row : function of (result, row)
        Called with each finished row, and again when it was measured again.
    on_case : function of case
        Called before each.
    earlier : Result, optional
        Gone on with: its rows are kept, but for those that `remaining` tells, and what the plan has beyond is measured.

    Returns
    -------
    Result
        A KeyboardInterrupt ends it early: what was measured is kept.

    Raises
    ------
    ValueError
        Where the earlier result is of another machine, other settings, versions or peers.
    """
    result = Result(plan)
    with _processes((OURS, *plan.peers)) as sides:
        try:
            result.facts = _facts(sides, plan)
            if earlier is not None:
                result = _resumed(earlier, result)
            result.ceiling = result.ceiling or _ceiling(sides, plan)
            for case in still_to_do(plan.cases, result):
                on_case(case)
                row = Row(case, _outcomes(case, sides, plan))
                result.rows.append(row)
                on_row(result, row)
            for row in _once_more(plan, sides, result):
                on_case(row.case)
                timed = {name: sides[name] for name, outcome in row.sides.items() if outcome.timed}
                row.join(_outcomes(row.case, timed, replace(plan, memory=False)))
                on_row(result, row)
            if not on_gpu():  # others may have had the machine when it was asked first
                result.ceiling = _highest([result.ceiling, _ceiling(sides, plan)])
        except KeyboardInterrupt:
            result.interrupted = True
    return result


def _once_more(plan: Plan, sides: Sides, result: Result) -> Iterator[Row]:
    """Rows that are unsteady, all of them before any comes a second time; each side begins anew before."""
    while unsteady := worth_another_try(plan, result):
        for process in sides.values():
            process.close()
        yield from unsteady


def remaining(plan: Plan, earlier: Result | None) -> list[Case]:
    """The cases of a plan that have no row yet, or none to go on with.

    A row in which a side failed is measured anew; and of another commit one that was unsteady, since calls of two
    versions are not put together.
    """
    todo = {case.name for case in still_to_do(plan.cases, earlier)}
    if earlier is not None and earlier.facts.get("commit") != facts.commit().get("commit"):
        todo |= {row.case.name for row in worth_another_try(plan, earlier)}
    return [case for case in plan.cases if case.name in todo]


def _resumed(earlier: Result, now: Result) -> Result:
    """The earlier rows that count, as part of a run that goes on."""
    if list(earlier.plan.peers) != list(now.plan.peers):
        evidence = f"there: {', '.join(earlier.plan.peers) or 'none'}; here: {', '.join(now.plan.peers) or 'none'}"
        raise ValueError(message("--resume", "the file compares with other peers.", evidence))
    again = {case.name for case in remaining(now.plan, earlier)}
    rows = [row for row in earlier.rows if row.case.name not in again]
    cases = [*(row.case for row in rows), *(case for case in now.plan.cases if case.name in again)]
    wanted = [*earlier.missing, *(case.name for case in earlier.plan.cases)]
    plan = replace(now.plan, cases=cases)
    return Result(plan, earlier.ceiling, facts.joined(earlier.facts, now.facts), rows, wanted)


@contextmanager
def _processes(names: Sequence[str]) -> Iterator[Sides]:
    """A process for each side, ended with the block."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Process(name, current()))) for name in names}


def _facts(sides: Sides, plan: Plan) -> dict[str, Any]:
    """Of the machine, its device, and what each side is; the sides start and load their libraries at the same time."""
    versions: dict[str, str] = {}
    with ThreadPoolExecutor(len(sides)) as pool:
        for found in pool.map(lambda process: _or_reason(process, "version"), sides.values()):
            versions |= {k: v for k, v in found.items() if k != "failed"}
    device = {k: v for k, v in _or_reason(sides[OURS], "facts").items() if k != "failed"}
    return {**facts.gathered(plan.dtype, plan.rounds, versions), **device}


def _ceiling(sides: Sides, plan: Plan) -> dict[str, Any]:
    """What the machine could reach at most; on a GPU, the better of what xpconv's and PyTorch's own calls reach."""
    asked = [sides[name] for name in ((OURS, "torch") if on_gpu() else (OURS,)) if name in sides]
    found = [_or_reason(process, "ceiling", plan.dtype) for process in asked]
    return _highest(found)


def _highest(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The most that was reached of each; the reason why there is none, if none was found."""
    right = [ceiling for ceiling in found if "failed" not in ceiling]
    if not right:
        return found[0]
    return {**right[0], **{rate: max(ceiling[rate] for ceiling in right) for rate in ("gflops", "gbytes_per_s")}}


def _or_reason(process: Process, order: str, *arguments: Any) -> dict[str, Any]:
    try:
        return process.ask(order, *arguments)
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
        if outcome.timed and plan.memory and case.direction in ("backward", "step"):
            outcome.memory = _memory(case, process, outcome.best)
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
        _after_failure(process)
        return Outcome(failed=str(why))
    errors = {found["name"]: judge(case, arrays, found["answers"]) for found in offered}
    right = [name for name, error in errors.items() if error <= 1]
    if not right:
        return Outcome(failed=refusal(errors), errors=errors)
    tick = 0.0 if on_gpu() else scheduler_tick()
    return Outcome(turns={name: [] for name in right}, errors=errors, note=offered[0]["note"], tick=tick)


def _after_failure(process: Process) -> None:
    """Begin anew on a GPU, where an error of the device ends all that its process could still do."""
    if on_gpu():
        process.close()


def on_gpu() -> bool:
    """Whether the backend in force computes on a GPU."""
    return current().backend.partition(":")[0] == "cupy"


def _rotated(names: list[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return names[by:] + names[:by]


def _turn(process: Process, outcome: Outcome) -> None:
    if not outcome.timed:
        return
    if not on_gpu():
        time.sleep(_SETTLE)
    try:
        found = process.ask("turn", _TURN, list(outcome.turns))
    except SideError as error:
        outcome.failed = str(error)
        _after_failure(process)
        return
    for name, more in zip(outcome.turns, found, strict=True):
        outcome.turns[name].append(more.times)
        if more.host:
            outcome.host.setdefault(name, []).extend(more.host)


def _memory(case: Case, process: Process, candidate: str) -> int | None:
    """Of forward and backward together; on the host in a process that has done nothing else.

    What a recording takes was taken when it was made: the same step call by call stands for it.
    """
    whole = replace(case, direction="both") if case.direction == "backward" else case
    candidate = candidate.partition(RECORDED)[0]
    try:
        if on_gpu():
            return process.ask("memory", whole, candidate)
        with closing(Process(process.side, current())) as fresh:
            return fresh.ask("memory", whole, candidate)
    except SideError:
        return None
