"""Everything that a machine with a CUDA GPU can tell of xpconv, in stages; the first minutes on one.

    python bench/gpu.py gpu-results                          what matters most: nine minutes
    python bench/gpu.py gpu-results --minutes 3              again, as long as there is time: what is left
    python bench/gpu.py gpu-results --stages parity,layouts  these, whether they ran before or not
    python bench/gpu.py dry --dry-run                        the same ways on an emulated CuPy: nothing is measured

Each stage is a process with a time limit of its own, and fails without stopping the next. What it prints goes into
``STAGE.log``, its figures into JSON files of the folder, as they come; ``stages.json`` says how each ended. A file
``results.tar.gz`` holds them all; on another machine ``--from results.tar.gz`` goes on from it. Nothing is fetched from
a network. PyTorch, pytest and compute-sanitizer are used where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_stages import MINUTES, ROOT, Stage, headline, stages

EMULATED = ROOT / "tests" / "emulated"
NOT_BEGUN = "not begun"
GRACE = 4  # seconds in which a stage that is stopped may end what it has started: a benchmark its sides' processes


def environment(dry_run: bool, tuned: bool) -> dict[str, str]:
    """For a stage: this checkout first on the path, in a dry run the emulated CuPy before it; cuDNN's plans timed?"""
    path = [*([EMULATED] if dry_run else []), ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    whole = os.pathsep.join(str(part) for part in path if part)
    return {"XPCONV_AUTOTUNE": str(int(tuned)), **os.environ, "PYTHONPATH": whole, "PYTHONUNBUFFERED": "1"}


def run(stage: Stage, out: Path, limit: float, env: dict[str, str]) -> dict[str, Any]:
    """Run one stage to its end or its limit, and tell how it ended."""
    started = time.monotonic()
    if stage.absent:
        return {"status": f"left out: {stage.absent}", "seconds": 0.0}
    with open(out / f"{stage.name}.log", "w") as log:
        log.write(f"$ {' '.join(stage.command)}\n\n")
        log.flush()
        child = subprocess.Popen(
            stage.command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=GRACE)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = None
        except BaseException:  # Ctrl-C is not the stage's, whose session is its own
            os.killpg(child.pid, signal.SIGKILL)
            raise
    ended = "stopped at its limit" if status is None else "done" if status == 0 else f"exit status {status}"
    return {"status": ended, "seconds": round(time.monotonic() - started, 1)}


def over(found: dict[str, object] | None) -> bool:
    """Whether a stage ended by itself, well or badly: the same again would tell the same."""
    return found is not None and str(found["status"]).startswith(("done", "exit status"))


def table(chosen: list[Stage], ended: dict[str, dict[str, object]], out: Path) -> str:
    """A line for each stage that was begun; those that failed without figures say what their log ends with."""
    begun = [stage for stage in chosen if stage.name in ended]
    lines = [
        (stage.name, str(found["status"]), f"{found['seconds']:.0f} s", headline(out, stage) or told(out, stage, found))
        for stage, found in ((stage, ended[stage.name]) for stage in begun)
    ]
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(3)]
    shown = [
        f"{name:<{widths[0]}}  {status:<{widths[1]}}  {took:>{widths[2]}}  {said}".rstrip()
        for name, status, took, said in lines
    ]
    rest = ", ".join(stage.name for stage in chosen if stage.name not in ended)
    return "\n".join([*shown, *([f"{NOT_BEGUN}: {rest}"] if rest else [])])


def told(out: Path, stage: Stage, found: dict[str, object]) -> str:
    """The last line of what a stage printed that did not go well."""
    log = out / f"{stage.name}.log"
    if found["status"] == "done" or not log.exists():
        return ""
    return next((line.strip() for line in reversed(log.read_text().splitlines()) if line.strip()), "")[:160]


def packed(out: Path) -> Path:
    """All results as one file beside them."""
    path = out / "results.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(out.rglob("*")):
            if file.is_file() and file != path:
                archive.add(file, file.relative_to(out))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu-results"), help="folder (default: gpu-results)")
    parser.add_argument("--stages", help="names with commas between (default: all that have not ended yet)")
    parser.add_argument("--minutes", type=float, default=MINUTES[0], help=f"in all (default: {MINUTES[0]:g})")
    parser.add_argument("--from", dest="earlier", type=Path, help="a results.tar.gz of an earlier call to go on from")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the emulated CuPy; measures nothing")
    parser.add_argument("--list", action="store_true", help="name the stages and end")
    options = parser.parse_args()
    every = stages(options.out.resolve(), options.dry_run)
    names = [stage.name for stage in every]
    wanted = options.stages.split(",") if options.stages else names
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"no stage is called {unknown[0]!r}; there are: {', '.join(names)}")
    if options.list:
        lines = (f"{s.name:<24}  call {s.call}  {s.limit:>4} s  {' '.join(s.command)}" for s in every)
        print("\n".join(lines))
        return 0

    options.out.mkdir(parents=True, exist_ok=True)
    if options.earlier:
        with tarfile.open(options.earlier) as archive:
            archive.extractall(options.out, filter="data")
    record = options.out / "stages.json"
    ended = json.loads(record.read_text()) if record.exists() else {}
    deadline, spare = time.monotonic() + 60 * options.minutes, 0.0
    due = [s for s in every if s.name in wanted and (options.stages or not over(ended.get(s.name)))]
    due.sort(key=lambda s: s.name in ended and not s.resumes)  # what was stopped and begins anew waits for the others
    for stage in due:
        left = deadline - time.monotonic()
        if left < stage.least:
            continue  # a shorter one may fit
        print(f"{stage.name} ...", flush=True)
        env = environment(options.dry_run, stage.tuned)
        # Rows go on in what stages before have left of their limits: those behind keep theirs.
        limit = stage.limit + (spare if stage.resumes else 0.0)
        ended[stage.name] = found = run(stage, options.out, min(limit, left), env)
        spare = max(0.0, spare + stage.limit - float(found["seconds"]))
        beside = record.with_suffix(".new")  # whole at any moment: it is what the next call goes on from
        beside.write_text(json.dumps(ended, indent=1) + "\n")
        beside.replace(record)
    packed(options.out)
    print(table(every, ended, options.out))
    return 0 if all(ended.get(name, {}).get("status") == "done" for name in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
