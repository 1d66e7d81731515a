"""`xpconv parity` on a GPU, shared out over the cores of the machine: what takes time is the host's part.

    python bench/gpu_parity.py parity.json --workers 14

Each worker is a process of its own on the GPU, and takes some samples of an op on a target at a time. One whose device
or process fails is started anew, and what it was at is a miss. The file is that of `xpconv parity --json`, written as
answers come; kernels are compiled on the way, by all workers at once, and stay in CuPy's cache for whoever comes next.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from xpconv import use_backend
from xpconv.atomic import replacing
from xpconv.cli.parity import Report, chosen, trained
from xpconv.cli.parity_table import Training, summary, table
from xpconv.parity import Target, case_of
from xpconv.parity import joined as layers
from xpconv.parity.check import Row, check
from xpconv.parity.targets import absent, dtypes, targets
from xpconv.settings import precision

SAMPLES = 2  # of an op, at a time
SLOW = ("conv", "conv_transpose", "max_pool", "batch_norm", "linear")  # by host time of a sample, or by kernels
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Task(NamedTuple):
    """Some samples of an op on a target, or of layers that run in one pass; without an op, its training steps."""

    target: Target
    op: str = ""
    first: int = 0

    def done(self) -> Row | Training:
        """What is found."""
        if not self.op:
            return trained(self.target)
        if self.op == layers.NAME:
            return layers.check(self.target, layers.SAMPLES[self.first : self.first + 1])
        case = case_of(self.op)
        return check(self.target, replace(case, samples=case.samples[self.first : self.first + SAMPLES]))

    def failed(self, why: str) -> Row | Training:
        """What it was worth whose process failed."""
        return Row(self.target, self.op, faults=[why]) if self.op else Training(None, why, failed=True)


def tasks(here: list[Target], ops: list[str] | None) -> Iterator[Task]:
    """All there is to do, what takes longest first."""
    if not ops:
        yield from map(Task, here)
        # One at a time: cuDNN compiles kernels for each in half precision.
        for first in range(len(layers.SAMPLES)):
            yield from (Task(target, layers.NAME, first) for target in here)
    order = {name: place for place, name in enumerate(SLOW)}
    for case in sorted(chosen(ops), key=lambda case: order.get(case.name, len(order))):
        for first in range(0, len(case.samples), SAMPLES):
            yield from (Task(target, case.name, first) for target in here)


def joined(rows: list[Row]) -> list[Row]:
    """A row for each op on each target, of the rows for some of its samples."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        whole = found.setdefault((row.target.name, row.op), Row(row.target, row.op))
        whole.calls, whole.declined = whole.calls + row.calls, whole.declined + row.declined
        whole.faults += row.faults
        for into, part in ((whole.forward, row.forward), (whole.gradient, row.gradient)):
            for dtype, worst in part.items():
                into[dtype].meet(worst.error, worst.where)
    return sorted(found.values(), key=lambda row: row.target.name)


class Found:
    """What was found so far, in memory and in the file."""

    def __init__(self, path: Path, here: list[Target], lacking: dict[str, str]) -> None:
        self.path, self.here, self.lacking = path, here, lacking
        self.rows: list[Row] = []
        self.training: dict[str, Training] = {}
        self._lock, self._written = threading.Lock(), 0.0

    def take(self, task: Task, found: Row | Training) -> None:
        with self._lock:
            if isinstance(found, Row):
                self.rows.append(found)
            else:
                self.training[task.target.name] = found
            if time.monotonic() > self._written + 2:
                self.write(complete=False)

    def write(self, complete: bool) -> Report:
        report = Report(self.here, self.lacking)
        report.rows, report.training, report.complete = joined(self.rows), self.training, complete
        with replacing(self.path) as beside:
            beside.write_text(json.dumps(report.document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self._written = time.monotonic()
        return report


class Worker:
    """A process that does tasks, as its starter sees it."""

    def __init__(self) -> None:
        command, environment = [sys.executable, __file__, "--serve"], {**os.environ, **ONE_THREAD}
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def ask(self, task: Task) -> tuple[Row | Training, bool]:
        """What is found, and whether the process can go on."""
        assert self._child.stdin
        assert self._child.stdout
        try:
            pickle.dump(task, self._child.stdin)
            self._child.stdin.flush()
            return pickle.load(self._child.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return task.failed(f"its process died (exit status {self._child.wait()})"), False

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()


def work(left: Iterator[Task], found: Found, lock: threading.Lock) -> None:
    """Have one worker after the other do tasks until there are no more."""
    worker = None
    while True:
        with lock:
            task = next(left, None)
        if task is None:
            break
        worker = worker or Worker()
        row, goes_on = worker.ask(task)
        found.take(task, row)
        if not goes_on:
            worker.close()
            worker = None
    if worker:
        worker.close()


def serve() -> None:
    """Do tasks as they come in."""
    sys.modules["numba"] = None  # type: ignore[assignment]  # its kernels for the host take longer to compile than to do
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with precision("ieee"):
        while True:
            try:
                task = pickle.load(orders)
            except EOFError:
                return
            pickle.dump((task.done(), _device_answers()), answers)
            answers.flush()


def _device_answers() -> bool:
    """Whether the device still does what this process asks it for; an error in a kernel ends that."""
    import cupy

    try:
        cupy.cuda.Device().synchronize()
    except Exception:  # whatever it was
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--op", type=lambda text: text.split(","), help="these alone, and no training steps")
    parser.add_argument("--serve", action="store_true", help="be a worker")
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    with use_backend("cupy"):
        wanted = targets(("cupy",))
        here = [target for target in wanted if not absent(target)]
        found = Found(options.json, here, {t.name: absent(t) for t in wanted if absent(t)})
        left, lock = iter(list(tasks(here, options.op))), threading.Lock()
        threads = [threading.Thread(target=work, args=(left, found, lock), daemon=True) for _ in range(options.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = found.write(complete=True)
        for target in here:
            rows = [row for row in report.rows if row.target == target]
            print(table(target, dtypes(target), rows, report.training.get(target.name)))
        print(summary(report.rows, report.training))
    return 0 if report.ok and here else 1


if __name__ == "__main__":
    sys.exit(main())
