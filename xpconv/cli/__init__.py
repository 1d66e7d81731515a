"""The command line: ``xpconv train``, ``xpconv predict``, ``xpconv info``, ``xpconv parity``,
``xpconv bench``.

Each subcommand lives in the module of its name, whose ``run(options)`` answers the exit status; it is imported when it
runs, so that ``xpconv --help`` costs what ``import xpconv`` costs.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from xpconv import notices, settings
from xpconv.backend import use_backend
from xpconv.cli.console import INTERRUPTED, REFUSED, UsageError, from_options
from xpconv.cli.options import read
from xpconv.cli.words import told
from xpconv.errors import BackendError, EngineError, FileError

_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    A mistake of the user's (an option, a file, a backend that is not here) is one message on the standard error and
    status 2; anything else is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or pipe of few characters shows "?" for the others
    status = _status(read(argv))
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more as it leaves
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        return REFUSED
    return status


def _status(options: argparse.Namespace) -> int:
    """Run the command; answer its exit status, or that of the mistake that ended it."""
    try:
        with notices.told_to(_aside), warnings.catch_warnings(), ExitStack() as chosen:
            warnings.showwarning = _warned  # type: ignore[assignment]
            _choose(options, chosen)
            status: int = importlib.import_module(f"xpconv.cli.{options.command}").run(options)
            return status
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        return _BROKEN_PIPE
    except (UsageError, BackendError, EngineError, FileError, OSError, MemoryError) as error:
        print(f"error: {told(error, options)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _warned(text: Warning | str, *_: object) -> None:
    """A warning without the line of source that it came from."""
    _aside(f"warning: {text}")


def _aside(text: str) -> None:
    """Tell what the command takes its time for, beside its output."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _choose(options: argparse.Namespace, chosen: ExitStack) -> None:
    """Put the settings that were given as options in force, for this command only."""
    with from_options():
        engines = [name.strip() for name in (options.engine or "").split(",")]
        choices = [
            (use_backend, [options.backend]),
            (settings.use_engine, engines),
            (settings.precision, [options.precision]),
        ]
        given = [(setting, value) for setting, value in choices if value[0]]
        for setting, _ in given:
            os.environ.pop(setting.variable, None)  # an option goes before its variable, even one that is wrong
        if options.command != "info":  # which tells what is wrong with it
            settings.current()  # what the environment says is judged here, before anything is begun
        for setting, value in given:
            chosen.enter_context(setting(*value))
