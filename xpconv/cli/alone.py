"""A folder that one run at a time writes into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xpconv.cli.console import UsageError
from xpconv.errors import message

_NAME = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Hold the folder for this process within the block; where another one holds it, refuse. Gives whether it is held.

    The lock is the system's own, which ends with the process that has it, however that ends: a file that a killed run
    has left holds nobody back. Where the system or the file system has no such locks, there is none.
    """
    path = folder / _NAME
    held = _locked(path)
    try:
        yield held is not None
    finally:
        if held is not None:
            with suppress(OSError):  # the folder may be gone
                path.unlink()
            os.close(held)


def _locked(path: Path) -> int | None:
    """The open file with the lock on it; `None` where there are no locks."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:  # Windows
        return None
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except BlockingIOError:
            holder = os.read(file, 20).decode(errors="replace")
            os.close(file)
            rule, evidence = f"another run writes into {str(path.parent)!r}.", f"process {holder}" if holder else ""
            remedy = "wait for its end, or give this run a folder of its own: --out DIR"
            raise UsageError(message("--out", rule, evidence, remedy)) from None
        except FileNotFoundError:  # its holder has ended and taken it away; so has one of another file by that name
            pass
        except OSError:  # a file system without locks
            os.close(file)
            path.unlink(missing_ok=True)
            return None
        os.close(file)
