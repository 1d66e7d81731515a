"""Schedules at the points that their papers fix."""

from __future__ import annotations

import math
from typing import Any

import pytest

from xpconv.train import schedule

ALL = [schedule.Step(every=0.25), schedule.Cosine(), schedule.Cosine(floor=0.1, warm_up=0.2), schedule.OneCycle()]


def test_step_falls_at_its_boundaries() -> None:
    thirds = schedule.Step(every=1 / 3, factor=0.1)
    expected = [1.0] * 30 + [0.1] * 30 + [0.01] * 30
    assert [thirds(i, 90) for i in range(90)] == pytest.approx(expected)


def test_cosine_is_half_a_cosine() -> None:
    plain = schedule.Cosine()
    assert [plain(i, 8) for i in range(9)] == pytest.approx([(1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)])
    floored = schedule.Cosine(floor=0.2)
    assert [floored(i, 4) for i in (0, 2, 4)] == pytest.approx([1.0, 0.6, 0.2])


@pytest.mark.parametrize(
    "made", [schedule.Step(every=0.5, warm_up=0.2, start=0.1), schedule.Cosine(warm_up=0.2, start=0.1)]
)
def test_a_warm_up_is_a_straight_line(made: schedule.Schedule) -> None:
    assert [made(i, 100) for i in (0, 10, 20)] == pytest.approx([0.1, 0.55, 1.0])
    cold = type(made)(every=0.5) if isinstance(made, schedule.Step) else schedule.Cosine()  # type: ignore[call-arg]
    assert [made(20 + 8 * i, 100) for i in range(10)] == pytest.approx([cold(10 * i, 100) for i in range(10)])


def test_one_cycle_goes_up_and_back_and_out() -> None:
    cycle = schedule.OneCycle(warm_up=0.4, start=0.1, end=0.001)
    assert [cycle(i, 100) for i in (0, 20, 40, 60, 80)] == pytest.approx([0.1, 0.55, 1.0, 0.55, 0.1])
    assert [cycle(i, 100) for i in (90, 100)] == pytest.approx([(0.1 + 0.001) / 2, 0.001])
    assert schedule.OneCycle(warm_up=0.5)(100, 100) == schedule.OneCycle().end


@pytest.mark.parametrize("made", ALL, ids=repr)
@pytest.mark.parametrize("total", [1, 7, 1000])
def test_a_schedule_stays_within_its_bounds(made: schedule.Schedule, total: int) -> None:
    assert all(0 <= made(i, total) <= 1 for i in range(total + 1))


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("Step", {"every": 0}, r"Step: every must be above 0 and at most 1\."),
        ("Step", {"every": 30}, r"Step: every must be above 0 and at most 1\.\n  given: every=30"),
        ("Step", {"every": 0.5, "factor": -1}, r"Step: factor must be at least 0 and finite\."),
        ("Cosine", {"floor": float("nan")}, r"Cosine: floor must be"),
        ("Cosine", {"warm_up": 1.0}, r"Cosine: warm_up must be at least 0 and below 1\."),
        ("Cosine", {"start": -0.1}, r"Cosine: start must be"),
        ("OneCycle", {"warm_up": 0.6}, r"OneCycle: warm_up must be above 0 and at most 0\.5\."),
        ("OneCycle", {"end": float("inf")}, r"OneCycle: end must be"),
    ],
)
def test_bad_numbers_are_named(kind: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        getattr(schedule, kind)(**options)
