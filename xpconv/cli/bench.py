"""``xpconv bench``: how fast this machine runs xpconv, beside other libraries."""

from __future__ import annotations

import argparse
from pathlib import Path

from xpconv.bench import chart, facts, report, sets, sides
from xpconv.bench.case import DIRECTIONS
from xpconv.bench.result import OURS, Plan, Result, Row
from xpconv.bench.run import measure, on_gpu, remaining
from xpconv.bench.sides import ours
from xpconv.bench.table import Table, closing_lines
from xpconv.cli.console import (
    INTERRUPTED,
    UsageError,
    check_place,
    from_options,
    heading,
    progress,
    require,
    say,
    terminal_width,
)
from xpconv.cores import usable_cores
from xpconv.errors import counted, message
from xpconv.settings import current, set_num_threads

_FAILED = 1  # the exit status of a run in which xpconv itself failed or answered wrongly


def run(options: argparse.Namespace) -> int:
    """Measure, print, write; answer the exit status."""
    if options.plot:
        require("train", ["matplotlib"])
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path:
            check_place(option, Path(path))
    if options.show:
        return _shown(options)
    if options.resume and not options.json:
        raise UsageError(message("--resume", "goes on with a file of figures.", "", "name it: --json FILE"))
    with from_options():
        directions = options.direction or (DIRECTIONS if on_gpu() else sets.DEFAULT_DIRECTIONS)
        cases = sets.chosen(options.set, options.batch, directions, options.only, options.dtype)
        peers = _peers(options.against)
    if options.plot and not peers:
        raise UsageError(message("--plot", "draws ratios, and there is no peer.", "", "name one: --against torch"))
    if ours.device().emulated and not options.emulated:
        rule = "this CuPy only stands for a GPU, and its times mean nothing."
        raise UsageError(message("bench", rule, "", "--emulated goes through the motions, to test them."))
    plan = Plan(cases, peers, options.rounds, options.memory, options.dtype, options.tries)
    if not options.threads:
        return _run(options, plan)
    with set_num_threads(options.threads):
        return _run(options, plan)


def _run(options: argparse.Namespace, plan: Plan) -> int:
    earlier = report.read(Path(options.json)) if options.resume and Path(options.json).exists() else None
    say(heading(_header(plan, earlier)))
    table = Table(plan.cases, plan.peers, plan.memory, on_gpu(), terminal_width())
    ceiling_told: list[bool] = []

    def on_row(result: Result, row: Row) -> None:
        """Print the row and write what there is, so that nothing is lost whatever happens next."""
        if not ceiling_told:
            ceiling_told.append(True)
            say(_ceiling(result))
        say("\n".join(table.lines(row, result.ceiling)))
        if options.json:
            report.write(result, Path(options.json))

    with progress(len(remaining(plan, earlier))) as on_next, from_options():
        result = measure(plan, on_row, lambda case: on_next(case.name), earlier)
    say("\n".join(closing_lines(result)))
    if options.json:
        report.write(result, Path(options.json))
        say(f"wrote {options.json}")
    _draw(result, options.plot)
    if result.interrupted:
        return INTERRUPTED
    return _FAILED if any(row.sides[OURS].failed for row in result.rows) else 0


def _shown(options: argparse.Namespace) -> int:
    """Print and draw what an earlier run wrote."""
    if options.json or options.resume:
        rule = "shows a file that was written before, and measures nothing."
        raise UsageError(message("--show", rule, "", "leave out --json and --resume."))
    result = report.read(Path(options.show))
    cases, plan = [row.case for row in result.rows], result.plan
    table = Table(cases, plan.peers, plan.memory, "gpu" in result.facts, terminal_width())
    say(_ceiling(result))
    for row in result.rows:
        say("\n".join(table.lines(row, result.ceiling)))
    say("\n".join(closing_lines(result)))
    _draw(result, options.plot)
    return 0


def _draw(result: Result, path: str | None) -> None:
    if not path:
        return
    if all(row.ratio(peer) is None for row in result.rows for peer in result.plan.peers):
        say(f"{path} is not drawn: no row has the time of a peer")
        return
    chart.draw(result, path)
    say(f"wrote {path}")


def _peers(against: list[str] | None) -> list[str]:
    """The peers that were named; else PyTorch where it is installed."""
    if against is None:
        return ["torch"] if sides.is_installed("torch") else []
    named = [] if against == ["none"] else list(dict.fromkeys(against))
    sides.check(named)
    return named


def _header(plan: Plan, earlier: Result | None) -> list[tuple[str, str]]:
    """What is about to be measured."""
    settings, cores = current(), usable_cores()[0]
    engines = ",".join(settings.engine) if settings.engine else "auto"
    threads = settings.num_threads or cores
    missing = [name for name in ("torch", "jax") if not sides.is_installed(name)]
    beside = ", ".join(plan.peers) or "nothing"
    if missing:
        beside += f" (not installed: {', '.join(missing)}; pip install 'xpconv[bench]')"
    rows = f"{counted(len(plan.cases), 'row')}, {counted(plan.rounds, 'round')}"
    if earlier is not None:
        rows += f"; {len(plan.cases) - len(remaining(plan, earlier))} of them there already"
    return [
        ("machine", f"{facts.cpu_name()}, {threads} of {cores} cores"),
        ("compute", f"backend {settings.backend}, engine {engines}, precision {settings.precision}, {plan.dtype}"),
        ("beside", beside),
        ("rows", rows),
    ]


def _ceiling(result: Result) -> str:
    """What the machine could do at most."""
    ceiling = result.ceiling
    text = ceiling.get("failed") or f"{ceiling['gflops']:g} GFLOP/s, {ceiling['gbytes_per_s']:g} GB/s"
    return heading([("ceiling", f"{text} ({ceiling.get('how', 'not measured')})")])
