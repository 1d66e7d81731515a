"""What the subcommands share: whose mistake an error is, packages that must be there, columns, a progress display."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from xpconv.errors import message

INTERRUPTED = 130  # 128 + SIGINT: the exit status of what Ctrl-C ended
REFUSED = 2  # that of a mistake of the user's, as argparse has it


class UsageError(Exception):
    """A mistake of the person at the command line; shown as its message alone."""


@contextmanager
def from_options() -> Iterator[None]:
    """A block whose errors of value, type or missing package come from what the user gave."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(str(error)) from error


def require(extra: str, modules: Sequence[str]) -> None:
    """Check for packages of an extra before any work is done, without importing them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(_DISTRIBUTIONS.get(name, name) for name in missing)
        rule = f"{names} {'is' if len(missing) == 1 else 'are'} not installed."
        raise UsageError(message("packages", rule, "", f"install with: pip install 'xpconv[{extra}]'"))


def check_place(option: str, path: Path) -> None:
    """Check that a file can be written, as far as can be told before the work."""
    if path.is_dir():
        raise UsageError(message(option, f"{str(path)!r} is a folder, where a file is to be written."))
    if not path.absolute().parent.is_dir():
        raise UsageError(message(option, f"there is no folder for {str(path)!r}."))


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}


def say(text: str) -> None:
    """Print for whoever still reads; the work goes on without a reader."""
    with suppress(OSError):
        print(text, flush=True)


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ", within: int | None = None) -> list[str]:
    """Rows of text with each column but the last padded to its widest cell; ``within`` a width, that one is wrapped."""
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    lines = [
        (indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])).rstrip()
        for row in rows
    ]
    if within is None:
        return lines
    before = " " * min(len(indent) + sum(width + 2 for width in widths), within // 2)
    return [textwrap.fill(line, within, subsequent_indent=before, break_on_hyphens=False) for line in lines]


def heading(rows: Sequence[Sequence[str]]) -> str:
    """What is about to be run, in two columns; on a terminal the second is wrapped."""
    return "\n".join(columns(rows, indent="", within=terminal_width()))


def terminal_width() -> int | None:
    """Columns of the terminal, if the output goes to one."""
    from xpconv.train.progress import on_terminal  # no command is slower to say --help for it

    return shutil.get_terminal_size().columns if on_terminal() else None


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A line on the standard error that tells how far the run is; where that is no terminal, nothing.

    Gives a function that is told the name of what comes next, which may turn out to be more than ``total``.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not terminal or importlib.util.find_spec("rich") is None:
        yield lambda name: None
        return
    from rich import console, progress, table

    rest = table.Column(ratio=1, no_wrap=True, overflow="ellipsis")  # of the line
    bar = progress.Progress(
        progress.BarColumn(bar_width=16, complete_style="cyan", finished_style="cyan"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.completed}/{task.total}  {task.description}", "none", table_column=rest),
        console=console.Console(stderr=True),
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        refresh_per_second=2,  # it takes time from what is measured
        transient=True,
        expand=True,
    )
    task = bar.add_task("starting", total=total)
    done = 0

    def on_next(name: str) -> None:
        nonlocal done
        bar.update(task, description=name, completed=done, total=max(total, done + 1))
        done += 1

    with bar:
        yield on_next
