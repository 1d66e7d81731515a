"""What is shown of a training run: `fit` tells a `Progress`, and whoever has a display of their own subclasses it."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from contextlib import suppress
from typing import Any

from xpconv.errors import message
from xpconv.train.history import Epoch, History
from xpconv.train.objective import Tally

_REFRESH = 0.1  # seconds between two looks at the running loss, each of which waits for the device


class Progress:
    """Told of every step and epoch of a run; shows nothing. Epochs and steps count from 1."""

    running: Tally | None = None  # of the epoch in progress; asking for its `result` waits for the device

    def on_start(self, epochs: int, steps: int) -> None:
        """The run begins: so many epochs, of so many steps each."""

    def on_note(self, text: str) -> None:
        """Something worth knowing once, perhaps before the run begins: that kernels are being compiled, whether steps
        are replayed as a CUDA graph, or why not.
        """

    def on_wait(self, text: str) -> None:
        """What the run is waiting for just now, such as the next of many kernels being compiled."""

    def on_step(self, epoch: int, step: int) -> None:
        """A step was queued. Nothing here may wait for the device."""

    def on_epoch(self, record: Epoch) -> None:
        """An epoch is over and measured."""

    def on_end(self, history: History) -> None:
        """The run is over: done, interrupted (`History.interrupted`), or ended by an error on its way up."""


class Together(Progress):
    """Several, each told in turn: one may show a run while another keeps what it has learned so far."""

    def __init__(self, *parts: Progress) -> None:
        self._parts = parts

    @property
    def running(self) -> Tally | None:
        """Of the epoch in progress; every part has it."""
        return self._parts[0].running

    @running.setter
    def running(self, tally: Tally | None) -> None:
        for part in self._parts:
            part.running = tally

    def on_start(self, epochs: int, steps: int) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_start(epochs, steps)

    def on_note(self, text: str) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_note(text)

    def on_wait(self, text: str) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_wait(text)

    def on_step(self, epoch: int, step: int) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_step(epoch, step)

    def on_epoch(self, record: Epoch) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_epoch(record)

    def on_end(self, history: History) -> None:
        """Tell all."""
        for part in self._parts:
            part.on_end(history)


class Lines(Progress):
    """A table of plain text, a row per epoch; ``held_out`` is what the columns of the validation data are called."""

    def __init__(self, held_out: str = "val") -> None:
        self._can_print, self._headed = True, False
        self._head = f"  epoch      loss  accuracy  {held_out + ' loss':>9}  {held_out + ' accuracy':>13}  seconds"

    def on_start(self, epochs: int, steps: int) -> None:
        """Begin a table, whose head comes with its first row: a run may have none."""
        self._epochs, self._headed = epochs, False

    def on_note(self, text: str) -> None:
        """Print it between the rows."""
        self._show(f"  {text}")

    def on_epoch(self, record: Epoch) -> None:
        """Print the row of an epoch."""
        if not self._headed:
            self._show(self._head)
            self._headed = True
        at = f"{record.epoch}/{self._epochs}"
        numbers = (record.loss, record.accuracy, record.val_loss, record.val_accuracy)
        loss, accuracy, val_loss, val_accuracy = map(_figure, numbers)
        self._show(f"{at:>7}  {loss:>8}  {accuracy:>8}  {val_loss:>9}  {val_accuracy:>13}  {record.seconds:>7.1f}")

    def _show(self, line: str) -> None:
        """Print a line; once that fails (the reader of a pipe is gone, the disk is full), go quiet and let it train."""
        if self._can_print:
            try:
                self._print(line)
            except OSError:
                self._can_print = False

    def _print(self, line: str) -> None:
        print(line, flush=True)


def _figure(number: float | None) -> str:
    """Of at most eight characters, as the columns are wide."""
    if number is None:
        return "-"
    return f"{number:.4f}" if not abs(number) >= 999.99995 else f"{number:.2e}"


class Bar(Lines):
    """The table, and below it a live bar within the epoch with the time left, the loss and the accuracy so far.

    Needs the package rich.
    """

    _bar: Any = None

    def on_start(self, epochs: int, steps: int) -> None:
        """Start the display."""
        from rich import console, progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", style="none"),
            progress.BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
            progress.TextColumn("{task.completed}/{task.total}  {task.fields[status]}", style="none"),
            console=console.Console(),  # rich's shared one remembers what the output was when first used
            transient=True,
        )
        self._task = self._bar.add_task(" " * 7, total=steps, status="getting ready")
        self._steps, self._looked = steps, 0.0
        self._first, self._began = 0, 0.0  # how many steps were done when the display was told first, and when
        self._bar.start()
        super().on_start(epochs, steps)

    def on_wait(self, text: str) -> None:
        """Say it in the bar's line, which stands still meanwhile; before there is one, where that will be."""
        with suppress(OSError):  # the terminal may be gone
            if self._bar is not None:
                self._bar.update(self._task, status=text, refresh=True)
            else:
                print(f"  {text}", end="\r", flush=True)

    def on_step(self, epoch: int, step: int) -> None:
        """Move the bar; now and then, look at the loss."""
        now = time.monotonic()
        if now - self._looked < _REFRESH and step < self._steps:
            return
        self._looked = now
        done = (epoch - 1) * self._steps + step
        if not self._first:  # that step compiles kernels, and says nothing about the others
            self._first, self._began = done, now
        left = (now - self._began) / max(done - self._first, 1) * (self._epochs * self._steps - done)
        status = [f"{int(left) // 60}:{int(left) % 60:02} left"] if done > self._first else []
        if self.running is not None:
            loss, accuracy = self.running.result()
            status += [f"loss {_figure(loss)}", *([f"accuracy {accuracy:.4f}"] if accuracy is not None else [])]
        description = f"{f'{epoch}/{self._epochs}':>7}"
        self._bar.update(self._task, completed=step, description=description, status="  ".join(status))

    def on_epoch(self, record: Epoch) -> None:
        """Print the row above the bar, and show the bar of an epoch that was too short for it to move by itself."""
        self._bar.refresh()
        super().on_epoch(record)

    def on_end(self, history: History) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _print(self, line: str) -> None:
        if self._bar is None:  # a note before the run
            super()._print(line)
            return
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def on_terminal() -> bool:
    """Whether the output is a terminal that can show a live bar."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def display(choice: object) -> Progress:
    """The display that was asked for: one's own, none, or a bar where there is a terminal and rich for it."""
    if isinstance(choice, Progress):
        return choice
    if not isinstance(choice, bool):
        rule = "progress must be True, False or a train.Progress."
        raise TypeError(message("fit", rule, f"given: progress={choice!r}"))
    if not choice:
        return Progress()
    return Bar() if on_terminal() and importlib.util.find_spec("rich") is not None else Lines()
