"""The process of one side: ``python -m xpconv.bench.worker PARENT``, spoken to by `process` through its pipes.

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
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from xpconv import settings
from xpconv.bench.candidate import Candidate, NotOfferedError
from xpconv.bench.case import Case
from xpconv.bench.devices import Device, Timed


class Worker:
    """What the orders do; each method's name is an order."""

    def __init__(self, module: str) -> None:
        self._side = importlib.import_module(module)
        self._device: Device = getattr(self._side, "device", Device)()
        self._candidates: list[Candidate] = []

    def version(self) -> dict[str, str]:
        return self._side.version()

    def facts(self) -> dict[str, Any]:
        return self._device.facts()

    def prepare(self, case: Case) -> list[dict[str, Any]]:
        """Make the case's arrays and candidates, warm them up, and answer what is to be judged of each."""
        from xpconv.bench.truth import extract

        self.drop()
        self._candidates = self._side.make(case, case.arrays())
        offered, failed = [], []
        for candidate in self._candidates:
            try:
                answers = extract(case, _answers(candidate))
            except Exception as error:  # another candidate may do
                failed.append(error)
                continue
            offered.append({"name": candidate.name, "note": candidate.note, "answers": answers})
        if not offered:
            raise failed[0]
        return offered

    def turn(self, seconds: float, names: list[str]) -> list[Timed]:
        """What the calls of some candidates take."""
        return [self._timed(c, seconds / len(names)) for c in self._candidates if c.name in names]

    def _timed(self, candidate: Candidate, seconds: float) -> Timed:
        with candidate.within():
            return self._device.timed(candidate, seconds)

    def drop(self) -> None:
        """Let the arrays of the last case go."""
        self._candidates = []
        gc.collect()
        self._device.release()

    def memory(self, case: Case, candidate: str) -> int | None:
        """Bytes that one call takes at most."""

        def chosen(case: Case) -> Candidate:
            made = self._side.make(case, case.arrays())
            return next(c for c in made if c.name == candidate)

        if case.direction != "step":  # loads code and compiles what is compiled once
            small = chosen(replace(case, batch=1))
            _waited(small)
            del small
            self.drop()  # what is kept of that call is not there for nothing
        whole = chosen(case)
        return self._device.peak(lambda: _waited(whole))

    def ceiling(self, dtype: str) -> dict[str, Any]:
        return self._device.ceiling(dtype)


def _answers(candidate: Candidate) -> dict[str, Any]:
    with candidate.within():
        return candidate.answers()


def _waited(candidate: Candidate) -> Any:
    """The result of a call, when it is there."""
    with candidate.within():
        result = candidate.call()
        candidate.wait(result)
    return result


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


def _end_with(parent: int) -> None:
    """End when the process that gives the orders has: an order may take minutes, and disturb whoever measures next."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def write(message: Any) -> None:
        pickle.dump(message, answers)
        answers.flush()

    serve(lambda: pickle.load(orders), write)


if __name__ == "__main__":
    main()
