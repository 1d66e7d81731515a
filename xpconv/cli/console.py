"""What the subcommands share: whose mistake an error is, packages that must be there, aligned columns."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from xpconv.errors import message

INTERRUPTED = 130  # 128 + SIGINT: the exit status of what Ctrl-C ended


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


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}


def say(text: str) -> None:
    """Print for whoever still reads; the work goes on without a reader."""
    with suppress(OSError):
        print(text, flush=True)


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> list[str]:
    """Rows of text with each column but the last padded to its widest cell."""
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    return [
        (indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])).rstrip()
        for row in rows
    ]
