"""The command line as a process of its own, and what it answers within this one."""

from __future__ import annotations

import re
import subprocess
import sys

from xpconv.cli import main

LAST_LINE = re.compile(r"test accuracy: [01]\.\d{4}")


def xpconv(*arguments, **options):
    command = [sys.executable, "-m", "xpconv", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, **options)


def status(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as exit_:  # argparse's own
        return exit_.code
