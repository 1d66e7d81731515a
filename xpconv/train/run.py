"""The epochs of a training run, one after another, and Ctrl-C between two steps."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.backend import Array, cast
from xpconv.errors import describe_all, message
from xpconv.hints import called
from xpconv.nn import Module
from xpconv.nn.init import generator
from xpconv.runtime import Runtime
from xpconv.train.augment import Augment
from xpconv.train.checkpoint import Checkpoint
from xpconv.train.feed import Feed
from xpconv.train.history import Epoch, History
from xpconv.train.objective import Evaluation, Objective, Tally
from xpconv.train.optim import Optimizer
from xpconv.train.predictor import forward_of
from xpconv.train.progress import Progress
from xpconv.train.schedule import Schedule
from xpconv.train.usual import Measured


@dataclass(frozen=True, slots=True)
class Run:
    """What the steps of a run need."""

    net: Module
    step: Callable[[Array, Array], Measured]
    feed: Feed
    held_out: Feed | None
    recording: Runtime | None  # what measuring may be recorded by
    objective: Objective
    optimizer: Optimizer
    rate: Any  # the optimizer's own, before any schedule
    schedule: Schedule | None
    augment: Augment | None
    seed: int
    shown: Progress
    epochs: int
    checkpoint: Checkpoint | None

    def all(self, history: History) -> History:
        """Every epoch that the history does not have yet, each with its record."""
        self.net.zero_grad()
        self.shown.on_start(self.epochs, self.feed.steps)
        try:
            with _ctrl_c() as pressed:
                for epoch in range(len(history), self.epochs):
                    started = time.perf_counter()
                    trained = None if pressed() else self.epoch(epoch, pressed)
                    if trained is None:
                        break
                    history.diverged = not math.isfinite(trained.loss)
                    val_loss, val_accuracy = None, None
                    if self.held_out is not None and not history.diverged:
                        val_loss, val_accuracy = measured(self.net, self.held_out, self.objective, self.recording)
                    seconds = time.perf_counter() - started
                    rate = float(self.optimizer.lr)
                    history.append(Epoch(epoch + 1, *trained, val_loss, val_accuracy, rate, seconds))
                    if self.checkpoint is not None:
                        self.checkpoint.keep(self.net, self.optimizer, history)
                    self.shown.on_epoch(history[-1])
                    if history.diverged:
                        break
        finally:
            self.optimizer.lr = self.rate
            history.interrupted = len(history) < self.epochs and not history.diverged
            self.shown.on_end(history)
        return history

    def epoch(self, epoch: int, pressed: Callable[[], bool]) -> Evaluation | None:
        """Every batch once, in an order that depends on the seed and the epoch alone; `None` if stopped midway."""
        steps, tally = self.feed.steps, Tally()
        self.shown.running = tally
        order = generator(self.seed, f"shuffle.{epoch}").permutation(self.feed.samples)
        for step, (x, target) in enumerate(self.feed.batches(order)):
            if self.augment is not None:
                x = self.augmented(x, generator(self.seed, f"augment.{epoch}.{step}"))
            if self.schedule is not None:
                self.optimizer.lr = self.rate * self.multiplier(epoch * steps + step)
            tally.add(*self.step(x, target), target)
            self.shown.on_step(epoch + 1, step + 1)
            if pressed():
                return None
        return tally.result()

    def augmented(self, x: Array, rng: np.random.Generator) -> Array:
        """A batch as the augmentation gives it back, in the dtype that it had."""
        assert self.augment is not None
        remedy = "augment is a function of (images, rng); random_flip() and random_shift() make one."
        y = called("augment", self.augment, x, rng, remedy=remedy)
        if getattr(y, "shape", ())[:1] != x.shape[:1]:
            rule = "augment must return as many images as it was given."
            raise TypeError(message("fit", rule, describe_all(given=x, returned=y) if y is not None else "None"))
        return cast(y, x.dtype)

    def multiplier(self, step: int) -> Any:
        """What the schedule says of a step."""
        assert self.schedule is not None
        place = step, self.epochs * self.feed.steps
        remedy = "schedule is a function of (step, total_steps), as train.schedule.Cosine() is."
        factor: Any = called("schedule", self.schedule, *place, remedy=remedy)
        if factor is None:
            rule = "schedule must return a number, by which the learning rate is multiplied."
            raise TypeError(message("fit", rule, "it returned None"))
        return factor


def measured(net: Module, feed: Feed, objective: Objective, recording: Runtime | None) -> Evaluation:
    """Loss and accuracy over all batches, as the network answers them; replayed where a runtime may record it."""
    tally, forward = Tally(), forward_of(net, recording, feed.samples // feed.batch_size)
    for x, target in feed.batches():
        outputs = forward(x)
        right = objective.right(outputs, target) if feed.labelled else None
        tally.add(objective.value(outputs, target), right, target)
    return tally.result()


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back, so that no step is left half done; gives a function that tells whether there was one.

    Only the main thread can, and only where Ctrl-C has its usual meaning.
    """
    pressed: list[bool] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        with suppress(OSError, RuntimeError):  # no reader any more, or Ctrl-C came while this very stream was written
            print("stopping after this step; Ctrl-C again leaves at once", file=sys.stderr, flush=True)

    usual = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
