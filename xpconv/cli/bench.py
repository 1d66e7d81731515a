"""``xpconv bench``: how fast this machine runs xpconv, beside other libraries."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xpconv.bench import chart, report, shapes, sides
from xpconv.bench.case import Case
from xpconv.bench.run import OURS, Plan, Result, Row, measure
from xpconv.bench.table import Table, closing_lines
from xpconv.cli.console import INTERRUPTED, UsageError, columns, from_options, require, say
from xpconv.cores import usable_cores
from xpconv.errors import message
from xpconv.settings import current, set_num_threads

_FAILED = 1  # the exit status of a run in which xpconv itself failed or answered wrongly


def run(options: argparse.Namespace) -> int:
    """Measure, print, write; answer the exit status."""
    if options.plot:
        require("train", ["matplotlib"])
    with from_options():
        cases = shapes.chosen(options.set, options.batch, options.direction, options.only)
        peers = _peers(options.against)
    if options.plot and not peers:
        raise UsageError(message("--plot", "draws ratios, and there is no peer.", "", "name one: --against torch"))
    for path in (options.json, options.plot):
        if path:
            _check_place(Path(path))
    if not options.threads:
        return _run(options, Plan(cases, peers, options.rounds, options.memory))
    with set_num_threads(options.threads):
        return _run(options, Plan(cases, peers, options.rounds, options.memory))


def _run(options: argparse.Namespace, plan: Plan) -> int:
    say("\n".join(columns(_header(plan), indent="")))
    table = Table(plan.cases, plan.peers, plan.memory)
    with _progress(len(plan.cases)) as on_case:
        result = measure(plan, lambda result, row: _show(table, result, row), on_case)
    say("\n".join(closing_lines(result)))
    if options.json:
        report.write(result, Path(options.json))
        say(f"wrote {options.json}")
    if options.plot:
        chart.draw(result, options.plot)
        say(f"wrote {options.plot}")
    if not result.complete:
        return INTERRUPTED
    return _FAILED if any(row.sides[OURS].failed for row in result.rows) else 0


def _peers(against: list[str] | None) -> list[str]:
    """The peers that were named; else PyTorch where it is installed."""
    if against is None:
        return ["torch"] if sides.is_installed("torch") else []
    named = [] if against == ["none"] else list(dict.fromkeys(against))
    sides.check(named)
    return named


def _check_place(path: Path) -> None:
    """The file can be written, as far as can be told before the work."""
    if path.is_dir():
        raise UsageError(message("bench", f"{str(path)!r} is a folder, where a file is to be written."))
    if not path.absolute().parent.is_dir():
        raise UsageError(message("bench", f"there is no folder for {str(path)!r}."))


def _header(plan: Plan) -> list[tuple[str, str]]:
    """What is about to be measured."""
    settings, cores = current(), usable_cores()[0]
    engines = ",".join(settings.engine) if settings.engine else "auto"
    threads = settings.num_threads or cores
    missing = [name for name in sides.SIDES if not sides.is_installed(name)]
    beside = ", ".join(plan.peers) or "nothing"
    if missing:
        beside += f" (not installed: {', '.join(missing)}; pip install 'xpconv[bench]')"
    rows = f"{len(plan.cases)} row{'s' * (len(plan.cases) != 1)}, {plan.rounds} rounds"
    return [
        ("machine", f"{report.cpu_name()}, {threads} of {cores} cores"),
        ("compute", f"backend {settings.backend}, engine {engines}, precision {settings.precision}, float32"),
        ("beside", beside),
        ("rows", rows),
    ]


def _show(table: Table, result: Result, row: Row) -> None:
    """Print a row as soon as it is there, and the ceiling before the first."""
    if len(result.rows) == 1:
        ceiling = result.ceiling
        text = ceiling.get("failed") or f"{ceiling['gflops']:g} GFLOP/s, {ceiling['gbytes_per_s']:g} GB/s"
        say("\n".join(columns([("ceiling", f"{text} ({ceiling.get('how', 'not measured')})")], indent="")))
    say("\n".join(table.lines(row, result.ceiling)))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Case], None]]:
    """A line on the standard error that tells how far the run is; where that is no terminal, nothing."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not terminal or importlib.util.find_spec("rich") is None:
        yield lambda case: None
        return
    from rich import console, progress

    bar = progress.Progress(
        progress.BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
        progress.TextColumn("{task.completed}/{task.total}  {task.description}", style="none"),
        progress.TimeElapsedColumn(),
        console=console.Console(stderr=True),
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        refresh_per_second=2,  # it takes time from what is measured
        transient=True,
    )
    task = bar.add_task("starting", total=total)
    done = 0

    def on_case(case: Case) -> None:
        nonlocal done
        bar.update(task, description=case.name, completed=done)
        done += 1

    with bar:
        yield on_case
