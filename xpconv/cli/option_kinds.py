"""What the options of several subcommands are made of: kinds of values, settings, how help is wrapped."""

from __future__ import annotations

import argparse
import re
import textwrap

from xpconv import settings


class Wrapped(argparse.HelpFormatter):
    """Descriptions and epilogs as paragraphs and tables, which are wrapped to the terminal line by line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_wrapped(line, width, indent) for line in text.splitlines())


def _wrapped(line: str, width: int, indent: str) -> str:
    """One line on several, those after it under the second column of a table, where it has two."""
    table = re.match(r" +\S+(?: \S+)*  +(?=\S)", line)
    within = len(table[0]) if table and len(table[0]) < width * 2 // 3 else len(line) - len(line.lstrip())
    below = indent + " " * within
    return textwrap.fill(line, width, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False)


def add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how it is computed")
    group.add_argument(
        "--backend", metavar="B", help="numpy, cupy, cupy:1, torch, ..., or auto: CuPy where a GPU is, else NumPy"
    )
    group.add_argument(
        "--engine",
        metavar="E",
        help=f"auto, or a strict chain such as portable or reference,portable ({', '.join(settings.ENGINES)})",
    )
    group.add_argument("--precision", metavar="P", help="ieee (default) or fast")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def counts(text: str) -> list[int]:
    return [positive_int(part) for part in text.split(",")]


def integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, not {text!r}") from None


def positive_int(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value
