"""``xpconv parity``: whether every op answers rightly on every engine of this machine, beside float64."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import xpconv
from xpconv.atomic import replacing
from xpconv.backend import get, to_numpy
from xpconv.bench.facts import cpu_name
from xpconv.cli.console import INTERRUPTED, UsageError, check_place, heading, progress, say
from xpconv.cli.parity_table import Training, summary, table
from xpconv.cores import usable_cores
from xpconv.errors import message
from xpconv.parity import CASES, Case, Target, joined
from xpconv.parity.check import Row, check, short
from xpconv.parity.targets import BACKENDS, absent, dtypes, targets
from xpconv.parity.training import disagreement
from xpconv.runtime import runtime_of
from xpconv.settings import applied, current, precision

FORMAT = 1
OnNext = Callable[[str], None]
_MISSED = 1  # the exit status where an answer is wrong


class DeviceLost(Exception):  # noqa: N818 - an outcome, told in its message
    """A device that answers no more: an error in a CUDA kernel ends all work of its process."""


def run(options: argparse.Namespace) -> int:
    """Check, print, write; answer the exit status."""
    cases = chosen(options.op)
    if options.json:
        check_place("--json", Path(options.json))
    settings = current()
    wanted = targets((settings.backend,) if options.backend else BACKENDS, settings.engine if options.engine else None)
    here = [target for target in wanted if not absent(target)]
    lacking = {target.name: absent(target) for target in wanted if absent(target)}
    if not here:
        rule, evidence = "nothing that was asked for can run here.", "; ".join(dict.fromkeys(lacking.values()))
        raise UsageError(message("parity", rule, evidence, "`xpconv info` shows what can."))
    say(heading(_header(here, lacking)))
    report = Report(here, lacking)
    try:
        with applied(settings), precision("ieee"), progress(_calls(here, cases, not options.op)) as on_next:
            for target in here:
                report.add(target, cases, networks=not options.op, on_next=on_next)
        report.complete = True
    except KeyboardInterrupt:
        say("stopped; what was checked so far:" if report.rows else "stopped before anything was checked")
    except DeviceLost as lost:
        say(f"\n{lost}")
    if report.rows or report.complete:
        say(summary(report.rows, report.training))
    if options.json:
        with replacing(options.json) as path:
            path.write_text(json.dumps(report.document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        say(f"wrote {options.json}")
    if not report.ok:
        return _MISSED
    return 0 if report.complete else INTERRUPTED


class Report:
    """What was checked so far."""

    def __init__(self, here: list[Target], lacking: dict[str, str]) -> None:
        self.here, self.lacking, self.complete = here, lacking, False
        self.rows: list[Row] = []
        self.training: dict[str, Training] = {}

    def add(self, target: Target, cases: list[Case], *, networks: bool, on_next: OnNext) -> None:
        """Check a target, and print its table as far as it comes."""
        before = len(self.rows)
        try:
            for case in cases:
                self.rows.append(check(target, case, _telling(on_next, f"{target.name} {case.name}")))
                if self.rows[-1].faults:
                    _check_answers(target, case.name)
            if networks:
                told = _telling(on_next, f"{target.name} {joined.NAME}")
                self.rows.append(joined.check(target, on_next=told))
                on_next(f"{target.name}: training")
                self.training[target.name] = trained(target)
        finally:
            say(table(target, dtypes(target), self.rows[before:], self.training.get(target.name)))

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(row.ok for row in self.rows) and all(training.ok for training in self.training.values())

    def document(self) -> dict[str, Any]:
        """The whole report as plain data; it names no user and no folder."""
        return {
            "what": "xpconv parity",
            "format": FORMAT,
            "complete": self.complete,
            "ok": self.ok,
            "xpconv": xpconv.__version__,
            "date": date.today().isoformat(),
            "machine": _machine(self.here),
            "unit": "the largest error against float64 over what is permitted (xpconv.parity.bounds)",
            "targets": [target.name for target in self.here],
            "not_here": self.lacking,
            "rows": [row.as_dict() for row in self.rows],
            "training": {name: training._asdict() for name, training in self.training.items()},
        }


def _check_answers(target: Target, op: str) -> None:
    """See that an array still goes to the target's device and back; else all that follows would be called wrong."""
    try:
        to_numpy(get(target.backend).asarray([0.0]))
    except Exception as error:  # of whatever library
        alone = f"xpconv parity --backend {target.backend} --op"
        rule = f"{target.name} answers no more after {op} ({short(error)}), and this process can check no more."
        raise DeviceLost(f"{rule}\n  `{alone} {op}` repeats it; `{alone} NAME,NAME` checks others.") from error


def _telling(on_next: OnNext, what: str) -> OnNext:
    """Tells of a sample what it is a sample of."""
    return lambda sample: on_next(f"{what}: {sample}")


def _calls(here: list[Target], cases: list[Case], networks: bool) -> int:
    """How often `Report.add` tells what comes next: of each sample in each dtype, and of the training."""
    samples = sum(len(case.samples) for case in cases) + len(joined.SAMPLES) * networks
    return sum(samples * len(dtypes(target)) + networks for target in here)


def trained(target: Target) -> Training:
    """Fifty steps on the target; the reference's loops would take minutes for them."""
    if target.engine == "reference":
        return Training(None, "not trained: loops are too slow for it")
    try:
        return Training(disagreement(target), "")
    except Exception as error:  # one more row of the report
        return Training(None, short(error), failed=True)


def chosen(names: list[str] | None) -> list[Case]:
    """The cases of the named ops, or all."""
    unknown = [name for name in names or () if name not in {case.name for case in CASES}]
    if unknown:
        known = f"known: {', '.join(sorted(case.name for case in CASES))}."
        raise UsageError(message("--op", f"no op is called {unknown[0]!r}.", "", known))
    return [case for case in CASES if not names or case.name in names]


def _machine(here: list[Target]) -> dict[str, str]:
    """The CPU, and the devices of the backends that are here."""
    found = {"cpu": f"{cpu_name()}, {usable_cores()[0]} cores"}
    for name in dict.fromkeys(target.backend for target in here):
        found |= runtime_of(get(name)).facts()
    return found


def _header(here: list[Target], lacking: dict[str, str]) -> list[tuple[str, str]]:
    """What is about to be checked, and what cannot be."""
    rows = [*_machine(here).items(), ("targets", ", ".join(target.name for target in here))]
    reasons: dict[str, list[str]] = {}
    for name, why in lacking.items():
        reasons.setdefault(why, []).append(name)
    rows += [("not here", f"{', '.join(names)}: {why}") for why, names in reasons.items()]
    unit = "largest error against float64, forward and gradients; 1 is the most that rounding may do"
    return [*rows, ("unit", unit)]
