"""How much memory one call takes beyond what was there before it: results, what it keeps, and scratch."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth(call: Callable[[], object]) -> int | None:
    """Bytes by which the peak of the resident memory exceeds what it was before; `None` where the system cannot tell.

    It counts pages, so small calls show nothing; memory of a GPU is not in it.
    """
    gc.collect()
    _give_back()
    try:
        _CLEAR.write_text("5")  # forget the peak so far
        before = _resident("VmRSS")
        call()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _give_back() -> None:
    """Have the C library return what was freed, such as the arrays that inputs were made of, where it is glibc: a call
    that takes from there would seem to need nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found.group(1))
