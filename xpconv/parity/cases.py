"""The one list of cases, a file for each family of ops."""

from __future__ import annotations

import functools

from xpconv.parity import activation, conv, dropout, linear, loss, norm, pad, pool, resize
from xpconv.parity.sample import Case

_FAMILIES = (conv, pool, pad, resize, linear, norm, activation, loss, dropout)

CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)


@functools.cache
def case_of(name: str) -> Case:
    """The case of the op of that name."""
    return next(case for case in CASES if case.name == name)
