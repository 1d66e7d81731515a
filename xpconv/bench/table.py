"""What was measured as lines of text: a heading for each group of rows, a line for each, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from xpconv.bench.case import Case
from xpconv.bench.result import OURS, Outcome, Result, Row, refusal
from xpconv.errors import counted

_NONE = "-"
_COLUMN = 5  # characters of a column at least
_PAGE = 15  # rows after which the names of the columns are said again
_LABEL = 25  # characters that the name of a row may have before anything else has to go
_SPARED = ("±", "GFLOP/s", "error")  # columns that a narrow terminal does without, in this order


class Table:
    """Lines of one width for the rows of a plan, made as the rows come in.

    Within a ``width``, columns are left out that can be spared, and then the names of rows are cut.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        peers: Sequence[str],
        memory: bool = False,
        host: bool = False,
        width: int | None = None,
    ) -> None:
        self._peers, self._memory, self._host = peers, memory, host
        self._label = max((len(case.layer.name) for case in cases), default=0)
        self._names = self._all_names()
        if width is not None:
            for name in _SPARED:
                if self._taken() + min(self._label, _LABEL) > width:
                    self._names = [other for other in self._names if other != name]
            self._label = max(min(self._label, width - self._taken()), 8)
        self._group: tuple[Any, ...] | None = None
        self._since_head = _PAGE
        self._told: set[tuple[str, str]] = set()

    def lines(self, row: Row, ceiling: dict[str, Any]) -> list[str]:
        """The row, under headings where another group begins, and above the reasons of sides that failed."""
        case = row.case
        group = (case.layer.set, case.direction, case.batch)
        shown = []
        if group != self._group:
            self._group = group
            if self._since_head >= _PAGE:
                self._since_head = 0
                shown = ["", self._line("", self._names)]
            shown.append(f"{case.layer.set}, {case.direction}, batch {case.batch}")
        self._since_head += 1
        shown.append(self._line(case.layer.name, self._cells(row, ceiling)))
        for name, outcome in row.sides.items():
            if outcome.failed or refusal(outcome.errors):
                shown.append(f"    {name}: {outcome.failed or refusal(outcome.errors)}")
            elif outcome.absent and (name, outcome.absent) not in self._told:  # once is enough
                self._told.add((name, outcome.absent))
                shown.append(f"    {name}: {outcome.absent}")
            elif outcome.unsteady:
                shown.append(f"    {name}: {_unsteady(*outcome.unsteady)}")
        if row.tries > 1:
            shown.append(f"    measured {row.tries} times, all calls count")
        return shown

    def _all_names(self) -> list[str]:
        """Of the columns, if there is room for all."""
        names = [f"{OURS} ms", "±", "GFLOP/s", "peak", "error", *["host µs"] * self._host]
        for peer in self._peers:
            names += [f"{peer} ms", "±", "ratio", *["host µs"] * self._host]
        if self._memory:
            names += [f"{name} MiB" for name in (OURS, *self._peers)]
        return names

    def _cells(self, row: Row, ceiling: dict[str, Any]) -> list[str]:
        """Of the columns that are shown."""
        ours = row.sides[OURS]
        cells = [milliseconds(ours.seconds), spread(ours), rate(row), share(row, ceiling), number(ours.error)]
        cells += [microseconds(ours.host_seconds)] * self._host
        for peer in self._peers:
            theirs = row.sides[peer]
            cells += [milliseconds(theirs.seconds), spread(theirs), number(row.ratio(peer))]
            cells += [microseconds(theirs.host_seconds)] * self._host
        if self._memory:
            cells += [mebibytes(row.sides[name].memory) for name in (OURS, *self._peers)]
        named = zip(self._all_names(), cells, strict=True)
        return [cell for name, cell in named if name in self._names]

    def _taken(self) -> int:
        """Characters of a line beside the name of the row."""
        return 2 + sum(2 + _width(name) for name in self._names)

    def _line(self, label: str, cells: Sequence[str]) -> str:
        short = label if len(label) <= self._label else label[: self._label - 1] + "…"
        aligned = "".join(f"  {cell:>{_width(name)}}" for name, cell in zip(self._names, cells, strict=True))
        return f"  {short:<{self._label}}" + aligned


def _unsteady(fastest: float, slowest: float) -> str:
    """The mark of a side whose times disagree."""
    return f"unsteady, {milliseconds(fastest)} ms at the fastest, {milliseconds(slowest)} ms in a turn"


def _width(name: str) -> int:
    return 6 if name == "peak" else max(_COLUMN, len(name))  # of which "175% m" has six


def summary(result: Result) -> list[dict[str, Any]]:
    """For each peer and direction, the geometric mean of the ratios, the least, and how many are below 1."""
    found = []
    for peer in result.plan.peers:
        for direction in dict.fromkeys(row.case.direction for row in result.rows):
            rows = [row for row in result.rows if row.case.direction == direction and row.ratio(peer) is not None]
            ratios = {row.case.name: row.ratio(peer) or 0.0 for row in rows}
            if ratios:
                slowest = min(ratios, key=lambda name: ratios[name])
                found.append(
                    {
                        "peer": peer,
                        "direction": direction,
                        "rows": len(ratios),
                        "geometric_mean": round(statistics.geometric_mean(ratios.values()), 3),
                        "below_1": sum(ratio < 1 for ratio in ratios.values()),
                        "least": round(ratios[slowest], 3),
                        "least_at": slowest,
                        "unsteady": sum(row.doubtful(peer) for row in rows),
                    }
                )
    return found


def closing_lines(result: Result) -> list[str]:
    """What the rows come to."""
    legend = ["", "ratio: a peer's time over xpconv's, above 1 xpconv is faster"]
    lines = legend if result.plan.peers and result.rows else []
    for entry in summary(result):
        doubtful = f", unsteady {entry['unsteady']}" if entry["unsteady"] else ""
        lines.append(
            f"  {entry['peer']} {entry['direction']}: geometric mean {entry['geometric_mean']:.2f}, "
            f"below 1 in {entry['below_1']} of {entry['rows']}{doubtful}"
        )
        lines.append(f"    least {entry['least']:.2f}, {entry['least_at']}")
    failed = sum(bool(row.sides[OURS].failed) for row in result.rows)
    if failed:
        lines.append(f"  xpconv failed in {failed} of {len(result.rows)} rows")
    again = sum(row.tries > 1 for row in result.rows)
    if again:
        still = sum(row.tries > 1 and row.unsteady for row in result.rows)
        lines.append(f"  {counted(again, 'row')} measured again, {still} of them unsteady still")
    if result.interrupted or not result.complete:
        said, wanted = "interrupted" if result.interrupted else "not complete", len(result.rows) + len(result.missing)
        lines += ["", f"{said}: {len(result.rows)} of {wanted} rows were measured"]
    return lines


def least_seconds(case: Case, ceiling: dict[str, Any]) -> tuple[float, str] | None:
    """The least time that the machine's arithmetic and memory allow the case, and which of the two it is."""
    if "gflops" not in ceiling:
        return None
    of_arithmetic = (case.flops or 0.0) / (ceiling["gflops"] * 1e9)
    of_memory = (case.bytes or 0.0) / (ceiling["gbytes_per_s"] * 1e9)
    return (of_arithmetic, "arithmetic") if of_arithmetic >= of_memory else (of_memory, "memory")


def rate(row: Row) -> str:
    """GFLOP/s of xpconv."""
    seconds, flops = row.sides[OURS].seconds, row.case.flops
    return number(flops / seconds / 1e9) if seconds and flops else _NONE


def share(row: Row, ceiling: dict[str, Any]) -> str:
    """The least possible time over xpconv's; an ``m`` where memory is what bounds it."""
    seconds, least = row.sides[OURS].seconds, least_seconds(row.case, ceiling)
    if not seconds or least is None:
        return _NONE
    return f"{100 * least[0] / seconds:.0f}%" + (" m" if least[1] == "memory" else "  ")


def spread(outcome: Outcome) -> str:
    """Half of what lies between the quartiles, in percent of the median."""
    seconds, quartiles = outcome.seconds, outcome.quartiles
    return f"{50 * (quartiles[1] - quartiles[0]) / seconds:.0f}%" if seconds and quartiles else _NONE


def milliseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1e3 * seconds)


def microseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1e6 * seconds)


def mebibytes(count: int | None) -> str:
    return _NONE if count is None else f"{count / 2**20:.1f}"


def number(value: float | None) -> str:
    """Three digits, as few places as that takes."""
    if value is None:
        return _NONE
    places = next((places for places, least in enumerate((100, 10, 0.1)) if value >= least), 3)
    return f"{value:.{places}f}"
