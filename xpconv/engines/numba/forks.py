"""Locks that a forked child can take: nobody holds one at the moment of the fork but the thread that forks."""

from __future__ import annotations

import os
import threading


def fork_safe_lock() -> threading.RLock:
    """A lock that a fork waits for, so that what it guards is whole in the child.

    A fork takes such locks in the reverse order of their making: one that is taken while another is held is made first.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
