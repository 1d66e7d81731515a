"""A side's process as seen by the one who times: orders go in, answers come out, and a death has a reason."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

from xpconv.bench import sides
from xpconv.settings import Settings

# How many threads libraries may start, which they read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class SideError(Exception):
    """Why a side did not do what it was asked."""


class AbsentError(Exception):
    """Why a side has nothing for a case."""


class Process:
    """One side in a process of its own, started when first asked for something, and anew after it died."""

    def __init__(self, side: str, settings: Settings) -> None:
        self.side, self._settings = side, settings
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, order: str, *arguments: Any) -> Any:
        """Have an order done and return its answer.

        Raises
        ------
        SideError
            With the reason that the side gives, or the signal that it died of.
        AbsentError
            Where the side has no such thing.
        """
        child = self._child if self._child is not None and self._child.poll() is None else self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            pickle.dump((order, arguments), child.stdin)
            child.stdin.flush()
            outcome, answer = pickle.load(child.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            status = child.wait()
            self.close()
            raise SideError(f"its process died ({_status(status)})") from None
        if outcome == "failed":
            raise SideError(answer)
        if outcome == "absent":
            raise AbsentError(answer)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        threads = self._settings.num_threads
        command = [sys.executable, "-m", "xpconv.bench.worker", str(os.getpid())]
        environment = {**os.environ, **(dict.fromkeys(_THREADS, str(threads)) if threads else {})}
        child = self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the one who times
        )
        assert child.stdin is not None
        if threads and hasattr(os, "sched_setaffinity"):  # for libraries that count cores and take no number
            os.sched_setaffinity(child.pid, sorted(os.sched_getaffinity(0))[:threads])
        pickle.dump(sides.of(self.side, self._settings), child.stdin)
        child.stdin.flush()
        return child


def _status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
