"""Schedules: functions of (step, total_steps) to a multiplier of the optimizer's learning rate.

A schedule is any function ``schedule(step, total_steps) -> float``; step counts from 0. Those here measure time as
shares of the whole run, so that one schedule serves any number of epochs. All but `OneCycle` can begin with a
warm-up: a straight line from ``start`` to 1 over the share ``warm_up`` ([1]_, section 2.2).

References
----------
.. [1] P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv:1706.02677, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from xpconv.errors import message

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class Step:
    """Multiply by ``factor`` each time another share ``every`` of the run is over.

    Parameters
    ----------
    every : float
        In (0, 1]: ``every=1/3`` lowers the rate after one and after two thirds.
    factor : float
        At least 0.
    warm_up : float
        Share of the run, in [0, 1); the shares of ``every`` are of what follows it.
    start : float
        Multiplier at the beginning of the warm-up.

    Raises
    ------
    ValueError
        For a number outside its range.

    Examples
    --------
    >>> from xpconv.train import schedule
    >>> [schedule.Step(every=1 / 3, factor=0.1)(step, 90) for step in (0, 29, 30)]
    [1.0, 1.0, 0.1]
    """

    every: float
    factor: float = 0.1
    warm_up: float = 0.0
    start: float = 0.04

    def __post_init__(self) -> None:
        _check(self, "every", above=0.0, most=1.0)
        _check(self, "factor")
        _check_warm_up(self)

    def __call__(self, step: int, total_steps: int) -> float:
        past, rising = _past_warm_up(step, total_steps, self.warm_up, self.start)
        # A share such as 1/3 has no exact float: what is within rounding of a boundary has reached it.
        return rising * self.factor ** math.floor(past / self.every + 1e-9)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to ``floor``: floor + (1 - floor)·(1 + cos(π·p)) / 2 at the share p of the run.

    Parameters
    ----------
    floor : float
        Multiplier at the end of the run, at least 0.
    warm_up : float
        Share of the run, in [0, 1); the cosine fills the rest.
    start : float
        Multiplier at the beginning of the warm-up.

    Raises
    ------
    ValueError
        For a number outside its range.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017,
       arXiv:1608.03983; equation 5, without restarts.

    Examples
    --------
    >>> from xpconv.train import schedule
    >>> [round(schedule.Cosine()(step, 100), 6) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """

    floor: float = 0.0
    warm_up: float = 0.0
    start: float = 0.04

    def __post_init__(self) -> None:
        _check(self, "floor")
        _check_warm_up(self)

    def __call__(self, step: int, total_steps: int) -> float:
        past, rising = _past_warm_up(step, total_steps, self.warm_up, self.start)
        return rising * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * past)) / 2)


@dataclass(frozen=True)
class OneCycle:
    """One cycle, in straight lines: ``start`` up to 1, back down to ``start``, and on down to ``end``.

    The optimizer's own learning rate is the highest one; the momentum is left as it is.

    Parameters
    ----------
    warm_up : float
        Share of the run that the rise takes, in (0, 0.5]; the way back takes as much, the last line the rest.
    start, end : float
        Multipliers at the beginning and at the end of the run, at least 0.

    Raises
    ------
    ValueError
        For a number outside its range.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: Very fast training of neural networks using large learning
       rates", arXiv:1708.07120, 2018.

    Examples
    --------
    >>> from xpconv.train import schedule
    >>> [round(schedule.OneCycle(warm_up=0.4)(step, 100), 4) for step in (0, 40, 80, 100)]
    [0.04, 1.0, 0.04, 0.0004]
    """

    warm_up: float = 0.45
    start: float = 0.04
    end: float = 0.0004

    def __post_init__(self) -> None:
        _check(self, "warm_up", above=0.0, most=0.5)
        _check(self, "start")
        _check(self, "end")

    def __call__(self, step: int, total_steps: int) -> float:
        share = step / max(total_steps, 1)
        if share < 2 * self.warm_up:
            return 1 - (1 - self.start) * abs(share / self.warm_up - 1)
        left = (1 - share) / (1 - 2 * self.warm_up) if self.warm_up < 0.5 else 0.0
        return self.end + (self.start - self.end) * left


def _past_warm_up(step: int, total_steps: int, warm_up: float, start: float) -> tuple[float, float]:
    """The share done of what follows the warm-up, and the multiplier of the warm-up itself (1 once it is over)."""
    share = step / max(total_steps, 1)
    if share < warm_up:
        return 0.0, start + (1 - start) * share / warm_up
    return (share - warm_up) / (1 - warm_up), 1.0


def _check_warm_up(schedule: Step | Cosine) -> None:
    _check(schedule, "warm_up", below=1.0)
    _check(schedule, "start")


def _check(
    schedule: object, name: str, *, above: float | None = None, most: float = math.inf, below: float = math.inf
) -> None:
    value = getattr(schedule, name)
    if not (value > above if above is not None else value >= 0) or not value <= most or not value < below:
        low = "at least 0" if above is None else f"above {above:g}"
        high = f"at most {most:g}" if most < math.inf else f"below {below:g}" if below < math.inf else "finite"
        rule = f"{name} must be {low} and {high}."
        raise ValueError(message(type(schedule).__name__, rule, f"given: {name}={value!r}"))
