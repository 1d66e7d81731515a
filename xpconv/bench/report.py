"""What was measured as one JSON document, written and read."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from xpconv.atomic import replacing
from xpconv.bench import how
from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.result import Outcome, Plan, Result, Row, refusal
from xpconv.bench.table import least_seconds, summary
from xpconv.errors import FileError, message

WHAT, FORMAT = "xpconv bench", 1


def document(result: Result) -> dict[str, Any]:
    """The whole report as plain data."""
    return {
        "what": WHAT,
        "format": FORMAT,
        "complete": result.complete,
        **({} if result.complete else {"missing": result.missing}),
        **result.facts,
        "ceiling": result.ceiling,
        "how": how.of(result),
        "summary": summary(result),
        "rows": [_row(row, result) for row in result.rows],
    }


def _row(row: Row, result: Result) -> dict[str, Any]:
    case = row.case
    layer = case.layer
    least = least_seconds(case, result.ceiling)
    return {
        "set": layer.set,
        "name": layer.name,
        "op": layer.op,
        "direction": case.direction,
        "x": [case.batch, *layer.x],
        **{name: list(shape) for name, shape in layer.parameters.items()},
        "options": layer.options,
        "flops": case.flops,
        "bytes": case.bytes,
        "bound_by": least[1] if least else None,
        "ratio": {peer: _rounded(row.ratio(peer)) for peer in result.plan.peers},
        "sides": {name: _side(outcome, case.flops, least, row.tries) for name, outcome in row.sides.items()},
    }


def _side(outcome: Outcome, flops: float | None, least: tuple[float, str] | None, tries: int) -> dict[str, Any]:
    if outcome.failed:
        return {"failed": outcome.failed}
    if outcome.absent:
        return {"not_offered": outcome.absent}
    times = outcome.times
    seconds = statistics.median(times[outcome.best])
    facts: dict[str, Any] = {
        "ms": _rounded(1e3 * seconds),
        "quartiles_ms": [_rounded(1e3 * q) for q in outcome.quartiles or ()],
        "gflops": _rounded(flops / seconds / 1e9) if flops else None,
        "fraction_of_peak": _rounded(least[0] / seconds) if least else None,
        "error": _rounded(outcome.error),
        "times_ms": {name: [_rounded(1e3 * t) for t in taken] for name, taken in times.items()},
        "calls": {name: [len(turn) for turn in turns] for name, turns in outcome.turns.items()},
    }
    if outcome.tick:
        facts["tick_ms"] = _rounded(1e3 * outcome.tick)
    if tries > 1:  # of the row, and told here, since all else in a row is taken for shapes
        facts["tries"] = tries
    if outcome.unsteady is not None:
        facts["unsteady_ms"] = [_rounded(1e3 * t) for t in outcome.unsteady]
    if len(outcome.errors) > 1:
        facts["best"] = outcome.best
        facts["errors"] = {name: _rounded(error) for name, error in outcome.errors.items()}
    if outcome.note:
        facts["engine"] = outcome.note
    if outcome.host_seconds is not None:
        facts["host_us"] = _rounded(1e6 * outcome.host_seconds)
    if refusal(outcome.errors):
        facts["refused"] = refusal(outcome.errors)
    if outcome.memory is not None:
        facts["memory_bytes"] = outcome.memory
    return facts


def _rounded(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")


def write(result: Result, path: Path) -> None:
    """The document as a file, replaced whole."""
    text = json.dumps(document(result), indent=1, ensure_ascii=False)
    text = re.sub(r"\[[-\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)  # numbers go on one line
    with replacing(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


# What a document and a row say beside the facts, and beside the shapes of the op's arrays.
_OWN = ("what", "format", "complete", "missing", "ceiling", "how", "summary", "rows")
_OF_A_ROW = ("set", "name", "op", "direction", "x", "options", "flops", "bytes", "bound_by", "ratio", "sides")


def read(path: Path) -> Result:
    """What `write` wrote, to be shown, drawn or gone on with.

    Raises
    ------
    FileError
        If it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["what"], found["format"]) != (WHAT, FORMAT):
            raise FileError(message("bench", f"{str(path)!r} is of another kind or format."))
        rows = [_row_read(entry, found["dtype"]) for entry in found["rows"]]
        peers = list(found["rows"][0]["ratio"]) if rows else []
        memory = any(outcome.memory is not None for row in rows for outcome in row.sides.values())
        plan = Plan([row.case for row in rows], peers, found["rounds"], memory, found["dtype"])
        facts = {key: value for key, value in found.items() if key not in _OWN}
        return Result(plan, found["ceiling"], facts, rows, found.get("missing", []))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise FileError(message("bench", f"{str(path)!r} was not written by xpconv bench.", said)) from error


def _row_read(entry: Mapping[str, Any], dtype: str) -> Row:
    shapes = {name: tuple(shape) for name, shape in entry.items() if name not in _OF_A_ROW}
    batch, *x = entry["x"]
    layer = Layer(entry["set"], entry["name"], entry["op"], tuple(x), shapes, entry["options"], batch)
    sides = {name: _side_read(side) for name, side in entry["sides"].items()}
    tries = max((side.get("tries", 1) for side in entry["sides"].values()), default=1)
    return Row(Case(layer, batch, entry["direction"], dtype), sides, tries)


def _side_read(side: Mapping[str, Any]) -> Outcome:
    if "ms" not in side:
        return Outcome(failed=side.get("failed", ""), absent=side.get("not_offered", ""))
    calls = side.get("calls", {})  # files of before do not tell turns: all calls are one
    turns = {name: _cut(taken, calls.get(name, [len(taken)])) for name, taken in side["times_ms"].items()}
    errors = side.get("errors") or dict.fromkeys(turns, side["error"])
    right = {name: taken for name, taken in turns.items() if errors[name] <= 1}
    host = {side.get("best", next(iter(right))): [side["host_us"] / 1e6]} if "host_us" in side else {}
    tick = side.get("tick_ms", 0.0) / 1e3
    return Outcome("", "", right, errors, side.get("engine", ""), side.get("memory_bytes"), host, tick)


def _cut(ms: Sequence[float], calls: Sequence[int]) -> list[list[float]]:
    """Seconds of the calls of each turn."""
    if sum(calls) != len(ms) or min(calls) < 1:
        raise TypeError(f"{len(ms)} times are not those of turns of {calls} calls")
    left = iter(ms)
    return [[taken / 1e3 for taken in islice(left, count)] for count in calls]
