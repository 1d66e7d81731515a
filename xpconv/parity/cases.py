"""The one list of cases, a file for each family of ops."""

from __future__ import annotations

import functools

from xpconv.parity import conv
from xpconv.parity.sample import Case

CASES: tuple[Case, ...] = tuple(case for family in (conv,) for case in family.CASES)


@functools.cache
def case_of(name: str) -> Case:
    """The case of the op of that name."""
    return next(case for case in CASES if case.name == name)
