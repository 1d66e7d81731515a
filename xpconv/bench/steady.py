"""Whether the times of a row are those of the work alone, told from the times themselves.

On a shared machine two threads may have to take turns on one core for a while, whichever side has its turn. Calls
then take twice as long, or as long as the system's scheduler needs to give each thread its slices: whole numbers of its
ticks. A call is never faster than its work allows, so the fastest tells where the others belong. Each side is judged by
itself, and never by which is ahead.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

FACTOR = 1.5  # between the noise of cores that a side has for itself, some 1.2, and the 2 of a core that is shared
NEAR = 0.015  # of a tick, within which a call ends with one: by chance one in 33 does
_COARSE = 6  # CLOCK_MONOTONIC_COARSE, which Linux moves on with every tick

RULE = (
    f"a side is unsteady where the median of one of its turns exceeds its fastest call {FACTOR:g} times (the slowest "
    "third of its turns is left out: the median of all calls is one of the others'), or where most of its calls end "
    "with a tick of the system's scheduler (`tick_ms`). Such rows are measured again at the end, all sides together "
    "and in new processes, three times in all unless told otherwise (`tries`). The calls of all tries count: none is "
    "dropped, so that none is chosen for whom it favours, and each side has as many turns as the others. What is "
    "unsteady still is marked, with its fastest call and the slowest turn that counts (`unsteady_ms`)"
)


def reach(turns: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The fastest call, and the median of the slowest turn that should agree with it: a third may be slower."""
    medians = sorted(statistics.median(turn) for turn in turns)
    return min(min(turn) for turn in turns), medians[len(medians) - 1 - len(medians) // 3]


def unsteady(turns: Sequence[Sequence[float]], tick: float) -> bool:
    """Whether a turn's median is too far from the fastest call, or most calls end with a tick; 0 for none."""
    fastest, slowest = reach(turns)
    calls = [seconds for turn in turns for seconds in turn]
    return slowest > FACTOR * fastest or (tick > 0 and 2 * sum(_ends_with(tick, call) for call in calls) > len(calls))


def _ends_with(tick: float, seconds: float) -> bool:
    ticks = seconds / tick
    return round(ticks) > 0 and abs(ticks - round(ticks)) < NEAR


def scheduler_tick() -> float:
    """Seconds between two of the system's; 0 where it does not tell."""
    return time.clock_getres(_COARSE) if sys.platform == "linux" else 0.0
