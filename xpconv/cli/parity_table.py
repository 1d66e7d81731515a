"""What `xpconv parity` prints: a table for each target, what they come to, and every miss in words."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import NamedTuple

from xpconv.cli.console import columns
from xpconv.parity import Target
from xpconv.parity.check import Row, Worst
from xpconv.train.progress import on_terminal

_NONE = "-"
_SHOWN = 6  # faults of a row that are told; one cause makes many


class Training(NamedTuple):
    """How far a target's loss curve is from float64's, in units of what rounding may do; or why there is none."""

    error: float | None
    note: str
    failed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the curves agree, as far as they were compared."""
        return not self.failed and (self.error is None or self.error <= 1)


def table(target: Target, dtypes: Sequence[str], rows: Sequence[Row], training: Training | None) -> str:
    """The rows of one target; ops that its engine takes no part in are named below."""
    served = [row for row in rows if row.calls or row.faults]
    head = ["op", "calls", *dtypes, "exact"]
    cells = [
        [row.op, _calls(row), *(_pair(row.forward.get(d), row.gradient.get(d)) for d in dtypes), _exact(row)]
        for row in served
    ]
    if training is not None and (training.error is not None or training.failed):
        cells.append(["50 training steps", "", *(_cell(training) if d == "float32" else _NONE for d in dtypes), ""])
    bad = [not row.ok for row in served] + [training is not None and not training.ok] * (len(cells) - len(served))
    text = _drawn(target.name, head, cells, bad) if served else f"\n{target.name}"
    others = [row.op for row in rows if not row.calls and not row.faults]
    return text + (f"\n  not served: {', '.join(others)}" if others else "")


def summary(rows: Sequence[Row], trainings: dict[str, Training]) -> str:
    """Every miss in words, and the verdict."""
    lines = []
    for row in rows:
        misses = row.misses()
        lines += [f"  {row.target.name} {row.op}: {miss}" for miss in misses[:_SHOWN]]
        if len(misses) > _SHOWN:
            lines.append(f"  {row.target.name} {row.op}: and {len(misses) - _SHOWN} more")
    for name, training in trainings.items():
        if not training.ok:
            lines.append(f"  {name} training: {training.note or f'{training.error:.3g} times the bound'}")
    wrong = sum(not row.ok for row in rows) + sum(not training.ok for training in trainings.values())
    calls, names = sum(row.calls for row in rows), dict.fromkeys(row.target.name for row in rows)
    what = f"{calls:,} calls on {len(names)} target{'s' * (len(names) != 1)}"
    verdict = f"parity: {wrong} of {len(rows) + len(trainings)} rows miss" if wrong else "parity: all within the bound"
    return "\n".join(["", *(["misses", *lines, ""] if lines else []), f"{verdict} ({what})"])


def _calls(row: Row) -> str:
    return f"{row.calls}" + (f" (-{row.declined})" if row.declined else "")


def _pair(forward: Worst | None, gradient: Worst | None) -> str:
    """Both directions' errors in one cell."""
    pair = [_NONE if worst is None else _error(worst.error) for worst in (forward, gradient)]
    return _NONE if pair == [_NONE, _NONE] else f"{pair[0]:>4} {pair[1]:>4}"


def _error(error: float) -> str:
    """Two significant places at most, so that columns stay narrow: ``0``, ``.31``, ``4.2``, ``1e+5``, ``inf``."""
    return f"{error:.2f}" if error < 10 else f"{error:.0e}".replace("e+0", "e") if error < float("inf") else "inf"


def _cell(training: Training) -> str:
    return "failed" if training.error is None else _error(training.error)


def _exact(row: Row) -> str:
    return f"{len(row.faults)} wrong" if row.faults else "ok"


def _drawn(title: str, head: Sequence[str], cells: Sequence[Sequence[str]], bad: Sequence[bool]) -> str:
    """A table in colours where a terminal can show them and rich is there, else aligned text."""
    if not on_terminal() or importlib.util.find_spec("rich") is None:
        marked = [[*row, "<- miss" if wrong else ""] for row, wrong in zip(cells, bad, strict=True)]
        return "\n".join(["", title, *columns([[*head, ""], *marked])])
    from rich import box, console, table

    grid = table.Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        grid.add_column(name, justify="left" if name in ("op", "exact") else "right", no_wrap=True)
    for row, wrong in zip(cells, bad, strict=True):
        grid.add_row(*row, style="bold red" if wrong else "none")
    text = io.StringIO()
    console.Console(file=text, force_terminal=True, highlight=False).print(grid)
    return "\n" + text.getvalue().rstrip("\n")
