"""How many cores this process may use: its affinity and its control group may allow fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> tuple[int, str]:
    """How many cores this process may use, and what limits it: nothing, its affinity, or its control group's quota."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quota = _quota(cgroups, process)
    if quota is not None and quota < affinity:
        return max(1, int(quota)), f"control group quota of {quota:g}; {machine} in the machine"
    if affinity < machine:
        return affinity, f"CPU affinity; {machine} in the machine"
    return machine, ""


def _quota(cgroups: Path, process: Path) -> float | None:
    """The least CPU quota in cores of the process's control group and the groups around it; both hierarchies' forms."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups if not controllers else cgroups / "cpu"
        group = root / place.strip("/")
        while True:
            limits.append(_group_quota(group))
            if group == root:
                break
            group = group.parent
    return min((limit for limit in limits if limit is not None), default=None)


def _group_quota(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota.isdecimal() else None  # "max" and -1: no limit
