"""The process of one side: ``python -m xpconv.bench.worker``, spoken to by `process` through its pipes.

Between two orders it sleeps in a read, so that it takes nothing from the side that is timed meanwhile. Whatever fails
is answered as a reason.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from xpconv import settings
from xpconv.bench.case import Case
from xpconv.bench.sides import Candidate, NotOfferedError

_MOST_CALLS = 20  # timed in one turn


class Worker:
    """What the orders do; each method's name is an order."""

    def __init__(self, module: str) -> None:
        self._side = importlib.import_module(module)
        self._candidates: list[Candidate] = []

    def version(self) -> dict[str, str]:
        return self._side.version()

    def prepare(self, case: Case) -> list[dict[str, Any]]:
        """Make the case's arrays and candidates, warm them up, and answer what is to be judged of each."""
        from xpconv.bench.truth import extract

        self.drop()
        self._candidates = self._side.make(case, case.arrays())
        return [{"name": c.name, "note": c.note, "answers": extract(case, c.answers())} for c in self._candidates]

    def turn(self, seconds: float, names: list[str]) -> list[list[float]]:
        """Seconds of each call of some candidates; the first of a turn wakes caches and threads, and is not told."""
        return [self._timed(c, seconds / len(names)) for c in self._candidates if c.name in names]

    def drop(self) -> None:
        """Let the arrays of the last case go."""
        self._candidates = []
        gc.collect()

    def memory(self, case: Case, candidate: str) -> int | None:
        """Bytes by which one call raises the resident memory of this process, which has done nothing like it before."""
        from xpconv.bench.memory import growth

        def chosen(case: Case) -> Candidate:
            made = self._side.make(case, case.arrays())
            return next(c for c in made if c.name == candidate)

        if case.direction != "step":  # loads code and compiles what is compiled once
            small = chosen(Case(case.layer, 1, case.direction))
            small.wait(small.call())
        whole = chosen(case)
        return growth(lambda: whole.wait(whole.call()))

    def ceiling(self) -> dict[str, Any]:
        from xpconv.bench.ceiling import measured

        return measured()

    @staticmethod
    def _timed(candidate: Candidate, seconds: float) -> list[float]:
        candidate.wait(candidate.call())
        times: list[float] = []
        while not times or (sum(times) < seconds and len(times) < _MOST_CALLS):
            started = time.perf_counter()
            candidate.wait(candidate.call())
            times.append(time.perf_counter() - started)
        return times


def reason(error: BaseException) -> str:
    """An error in one line, without the paths of this machine."""
    text = " · ".join(line.strip() for line in str(error).splitlines() if line.strip())
    text = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:'\"]+)+[\\/]([^\\/\s:'\"]+)", r"\1", text)
    return f"{type(error).__name__}: {text}"[:300]


def serve(read: Callable[[], Any], write: Callable[[Any], None]) -> None:
    """Do one order after the other, until there are no more."""
    module, in_force = read()
    with settings.applied(in_force), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worker = None
        while True:
            try:
                order, arguments = read()
            except EOFError:
                return
            try:
                worker = worker or Worker(module)
                write(("done", getattr(worker, order)(*arguments)))
            except NotOfferedError as error:
                write(("absent", str(error)))
            except Exception as error:
                write(("failed", reason(error)))


def main() -> None:
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def write(message: Any) -> None:
        pickle.dump(message, answers)
        answers.flush()

    serve(lambda: pickle.load(orders), write)


if __name__ == "__main__":
    main()
