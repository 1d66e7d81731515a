"""The record of a training run: one line per epoch, on the host and in a file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from xpconv.atomic import replacing
from xpconv.errors import FileError, message


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave; `None` for what was not measured."""

    epoch: int  # from 1
    loss: float  # mean over the epoch's images, as they were trained on
    accuracy: float | None  # likewise, in 0..1; `None` where the targets are not class labels
    val_loss: float | None
    val_accuracy: float | None
    lr: float  # of the epoch's last step
    seconds: float

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}", _measures("loss", self.loss, ", accuracy", self.accuracy)]
        if self.val_loss is not None:
            parts.append(_measures("validation", self.val_loss, ",", self.val_accuracy))
        return " · ".join([*parts, f"{self.seconds:.1f} s"])


def _measures(before: str, loss: float, between: str, accuracy: float | None) -> str:
    return f"{before} {loss:.4f}" + (f"{between} {accuracy:.4f}" if accuracy is not None else "")


_FIELDS = {field.name for field in fields(Epoch)}
_NEEDED = {"epoch", "loss", "lr", "seconds"}


class History(list[Epoch]):
    """The epochs of a run, in order; `fit` returns it.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C ended the run before its time. The network then has the weights of its last whole step, and
        the epoch it was in is not listed.
    diverged : bool
        Whether a loss that is not finite ended the run; the last epoch is the one it was found in.

    Examples
    --------
    >>> from xpconv.train import Epoch, History
    >>> history = History([Epoch(1, 0.5, 0.75, None, None, 1e-3, 2.0)])
    >>> print(history)
    epoch 1 · loss 0.5000, accuracy 0.7500 · 2.0 s
    """

    def __init__(self, epochs: Iterable[Epoch] = (), *, interrupted: bool = False, diverged: bool = False) -> None:
        super().__init__(epochs)
        self.interrupted = interrupted
        self.diverged = diverged

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object per epoch and line, the whole file or nothing.

        What was not measured is left out; a number that is not finite, which JSON cannot say, is ``null``.
        """
        with replacing(path) as beside:
            beside.write_text(self.as_lines(), encoding="utf-8")

    def as_lines(self) -> str:
        """The text that `save` writes."""
        return "".join(map(_line, self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Read what `save` wrote; ``null`` comes back as nan.

        Raises
        ------
        FileError
            For a file that is not such a history.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(message("History.load", f"cannot read {str(path)!r}.", str(error))) from error
        return cls.of_lines(text, path)

    @classmethod
    def of_lines(cls, text: str, path: str | os.PathLike[str]) -> History:
        """What `as_lines` made the text of; the path is where it was read from."""
        lines = enumerate(text.splitlines(), 1)
        return cls(_parsed(path, number, line) for number, line in lines if line.strip())


def _line(epoch: Epoch) -> str:
    measured = {name: value for name, value in asdict(epoch).items() if value is not None}
    return json.dumps({name: value if math.isfinite(value) else None for name, value in measured.items()}) + "\n"


def _parsed(path: str | os.PathLike[str], number: int, line: str) -> Epoch:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    numbers = isinstance(found, dict) and all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in found.values()
    )
    if not numbers or not _NEEDED <= set(found) <= _FIELDS:
        rule = f"line {number} of {str(path)!r} is not the record of an epoch."
        remedy = "the file may be truncated, or not a history."
        raise FileError(message("History.load", rule, f"found: {line[:100]}", remedy))
    given: dict[str, Any] = dict.fromkeys(_FIELDS)
    given |= {name: math.nan if value is None else value for name, value in found.items()}
    return Epoch(**given)
