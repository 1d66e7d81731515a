"""What was measured as one JSON document; it names no machine, no user and no folder."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from xpconv.atomic import replacing
from xpconv.bench.run import Outcome, Result, Row, refusal
from xpconv.bench.table import least_seconds, summary
from xpconv.cores import usable_cores
from xpconv.settings import current

FORMAT = 1

HOW = {
    "time": "each side in a process of its own, in turns, each round beginning with another side; medians and "
    "quartiles of all calls but the first of each turn; results are fresh; packing and dispatch are counted",
    "forward": "the op alone, with no gradient asked for",
    "backward": "all gradients from dy by a pullback made beforehand, without the forward pass; torch: autograd.grad "
    "with retain_graph; jax: a compiled function that takes the vjp's residuals as arguments",
    "step": "forward, loss, backward, SGD with momentum; LeNet without dropout; the same first weights on every side",
    "torch": "the better of its two memory formats",
    "jax": "compiled by jit, NHWC, each call waited for",
    "im2col": "windows copied into rows in NumPy, and one product",
    "flops": "by the definition, two for each multiply-add, twice as many backward; some algorithms need fewer",
    "fraction_of_peak": "the least time that the ceiling allows (arithmetic, or each array moved once) over the time",
    "error": "largest over the judged parts, in units of the permitted error (xpconv.parity.bounds); steps: of the "
    "losses of the first two steps against float64, in units of 1e-4",
    "memory": "growth of the peak resident memory by one forward and backward in a process of its own, inputs apart",
    "ratio": "the peer's median over xpconv's",
}


def document(result: Result) -> dict[str, Any]:
    """The whole report as plain data."""
    settings = current()
    sides = ("xpconv", *result.plan.peers)
    used = ("time", "forward", "backward", "step", "flops", "fraction_of_peak", "error", "ratio", *sides)
    return {
        "what": "xpconv bench",
        "format": FORMAT,
        "complete": result.complete,
        **_commit(),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": usable_cores()[0],
        "threads": settings.num_threads or usable_cores()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": result.versions,
        "backend": settings.backend,
        "engine": list(settings.engine) if settings.engine else "auto",
        "precision": settings.precision,
        "dtype": "float32",
        "rounds": result.plan.rounds,
        "ceiling": result.ceiling,
        "how": {k: v for k, v in HOW.items() if k in used or (k == "memory" and result.plan.memory)},
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
        "sides": {name: _side(outcome, case.flops, least) for name, outcome in row.sides.items()},
    }


def _side(outcome: Outcome, flops: float | None, least: tuple[float, str] | None) -> dict[str, Any]:
    if outcome.failed:
        return {"failed": outcome.failed}
    if outcome.absent:
        return {"not_offered": outcome.absent}
    seconds = statistics.median(outcome.times[outcome.best])
    facts: dict[str, Any] = {
        "ms": _rounded(1e3 * seconds),
        "quartiles_ms": [_rounded(1e3 * q) for q in quartiles(outcome.times[outcome.best])],
        "gflops": _rounded(flops / seconds / 1e9) if flops else None,
        "fraction_of_peak": _rounded(least[0] / seconds) if least else None,
        "error": _rounded(outcome.error),
        "times_ms": {name: [_rounded(1e3 * t) for t in times] for name, times in outcome.times.items()},
    }
    if len(outcome.times) > 1:
        facts["best"] = outcome.best
    if outcome.note:
        facts["engine"] = outcome.note
    if refusal(outcome.errors):
        facts["refused"] = refusal(outcome.errors)
    if outcome.memory is not None:
        facts["memory_bytes"] = outcome.memory
    return facts


def quartiles(times: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    if len(times) < 2:
        return times[0], times[0]
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return first, third


def _rounded(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")


def cpu_name() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> dict[str, str]:
    """The commit of the checkout that xpconv is run from, if it is one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}
    command = ["git", "-C", os.fspath(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": done.stdout.strip()}


def write(result: Result, path: Path) -> None:
    """The document as a file, replaced whole."""
    text = json.dumps(document(result), indent=1, ensure_ascii=False)
    text = re.sub(r"\[[-\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)  # numbers go on one line
    with replacing(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
