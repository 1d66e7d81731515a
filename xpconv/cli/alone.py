"""A folder that one run at a time writes into."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from xpconv.cli.console import UsageError
from xpconv.errors import message

_NAME = ".lock"
_FAR = 2**20  # the byte that is locked on Windows, where no one else can read it; the holder's number stands before


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
            # The folder may be gone. What is locked goes first, or it could be another's; Windows keeps what is open.
            with suppress(OSError):
                path.unlink()
            os.close(held)
            if os.name == "nt":
                with suppress(OSError):
                    path.unlink()


def _locked(path: Path) -> int | None:
    """The open file with the lock on it; `None` where there are no locks."""
    lock = _system_lock()
    if lock is None:
        return None
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(file)
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


def _system_lock() -> Callable[[int], None] | None:
    """What locks an open file for this process, or raises BlockingIOError where another one has it."""
    with suppress(ImportError):
        fcntl = importlib.import_module("fcntl")
        return lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(ImportError):
        return partial(_lock_on_windows, importlib.import_module("msvcrt"))
    return None


def _lock_on_windows(msvcrt: Any, file: int) -> None:
    os.lseek(file, _FAR, os.SEEK_SET)  # a byte may be locked where the file has none
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError from error
    finally:
        os.lseek(file, 0, os.SEEK_SET)
