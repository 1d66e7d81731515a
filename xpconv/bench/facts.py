"""What a measurement is of: the machine, the settings and the versions. It names no user and no folder."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

from xpconv.cores import usable_cores
from xpconv.errors import message
from xpconv.settings import Settings, current

_OF_THE_DAY = ("commit", "date")  # pieces of one measurement may differ in these


def gathered(dtype: str, rounds: int, versions: dict[str, str]) -> dict[str, Any]:
    """The facts of a run under the settings in force."""
    settings = current()
    return {
        **commit(),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": usable_cores()[0],
        "threads": settings.num_threads or usable_cores()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "backend": settings.backend,
        "engine": list(settings.engine) if settings.engine else "auto",
        "precision": settings.precision,
        "dtype": dtype,
        "rounds": rounds,
        **{name: value for name, (value, default) in _others().items() if value != default},
    }


def _others() -> dict[str, tuple[Any, Any]]:
    """Settings that are told only where they are not as usual, and what is usual."""
    told = ("backend", "engine", "precision", "num_threads")
    return {f.name: (getattr(current(), f.name), f.default) for f in fields(Settings) if f.name not in told}


def joined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The facts of a measurement that was made in two pieces.

    Raises
    ------
    ValueError
        Where they are of two machines, settings or versions.
    """
    differing = [key for key in {**earlier, **later} if earlier.get(key) != later.get(key) and key not in _OF_THE_DAY]
    if differing:
        evidence = "; ".join(f"{key}: {earlier.get(key)} there, {later.get(key)} here" for key in differing)
        remedy = "write into another file, or measure under the same conditions."
        raise ValueError(message("--resume", "the file holds rows of another measurement.", evidence, remedy))
    days = {
        key: ", ".join(dict.fromkeys([*earlier[key].split(", "), later[key]]))
        for key in _OF_THE_DAY
        if key in earlier and key in later
    }
    return {**earlier, **later, **days}


def cpu_name() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> dict[str, str]:
    """The commit of the checkout that xpconv is run from, if it is one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}
    command = ["git", "-C", os.fspath(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": done.stdout.strip()}
