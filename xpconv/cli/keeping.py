"""The files of a training run: what is kept after every epoch, and what an earlier run left in their places."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from xpconv import train
from xpconv.atomic import sweep
from xpconv.cli.console import UsageError
from xpconv.errors import message
from xpconv.nn import Module
from xpconv.train.checkpoint import is_finite


class Files(NamedTuple):
    """Where a run writes."""

    model: Path
    history: Path
    checkpoint: Path
    curves: Path
    filters: Path
    mistakes: Path

    @classmethod
    def named(cls, out: Path) -> Files:
        """The files in a folder."""
        names = ("model.safetensors", "history.jsonl", "checkpoint.safetensors")
        return cls(*(out / name for name in (*names, "curves.png", "filters.png", "mistakes.png")))

    @classmethod
    def within(cls, out: Path) -> Files:
        """The files in a folder, known to be possible before any training."""
        out.mkdir(parents=True, exist_ok=True)
        files = cls.named(out)
        taken = next((path for path in files if path.is_dir()), None)
        if taken is not None:
            raise UsageError(message("--out", f"{str(taken)!r} is a folder, where a file is to be written."))
        try:
            tempfile.TemporaryFile(dir=out).close()
        except OSError as error:
            raise UsageError(message("--out", f"{str(files[0])!r} cannot be written.", str(error.strerror))) from error
        return files

    def sweep(self) -> None:
        """Remove the halves of files that a killed run has left: large ones, of a large network."""
        for path in self:
            sweep(path)

    @property
    def pictures(self) -> tuple[Path, Path, Path]:
        """Those that are drawn once the run is over."""
        return self.curves, self.filters, self.mistakes


class Keeper(train.Progress):
    """Keeps the network and the history after every epoch: of a run that is killed, one epoch is lost at most.

    Not those of an epoch whose loss was not finite, or whose last step left numbers that are not; nor, once there is
    something of this run, pictures of an earlier one.
    """

    def __init__(
        self,
        files: Files,
        net: Module,
        save: Callable[[Path], None],
        tell: Callable[[str], None],
        earlier: train.History,  # of a run that goes on
    ) -> None:
        self._files, self._net, self._save, self._tell = files, net, save, tell
        self._history = train.History(earlier)
        self.kept = 0  # the epoch whose network is in the file

    def on_epoch(self, record: train.Epoch) -> None:
        """Keep it, or say why that cannot be: the training goes on, and the last epoch tries again."""
        self._history.append(record)
        if not (math.isfinite(record.loss) and is_finite(self._net)):
            return
        try:
            self._save(self._files.model)
            self.kept = record.epoch
            for picture in self._files.pictures:
                picture.unlink(missing_ok=True)
            self._history.save(self._files.history)
        except OSError as error:
            self._tell(f"epoch {record.epoch} is not kept: {error.filename or self._files.model}: {error.strerror}")
