"""The file that a run is kept in after every epoch, so that it can go on where it was stopped."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpconv.arguments import flag
from xpconv.backend import to_numpy
from xpconv.errors import FileError, message
from xpconv.exchange import files, tensors
from xpconv.nn.printed import tree
from xpconv.settings import current
from xpconv.train.feed import Feed
from xpconv.train.history import History
from xpconv.train.objective import Objective
from xpconv.train.optim import Optimizer

if TYPE_CHECKING:
    from xpconv.nn import Module

_FORMAT = 1  # grows when an older reader could misread a file
_KEY = files.RUN_KEY  # of the one entry in the file's metadata
_NET, _OPTIMIZER = files.RUN_NET, "optimizer."  # what the names of the arrays begin with


class Checkpoint:
    """Where `fit` keeps a run after every epoch, and takes up one that was stopped.

    One file has all that the rest of a run depends on: the network and its running statistics, the optimizer's state,
    how often each dropout layer has drawn, and the history. It is replaced as a whole, so that it is always of one
    epoch; an epoch whose loss or network is not finite is not kept. It has checksums, and is refused where it was
    damaged since. Shuffles and augmentations depend on the seed, the epoch and the step alone, and a schedule on the
    step's place in the run: a run that is taken up gives what it would have given without the stop, to the bit where
    the same engines compute it.

    Parameters
    ----------
    path : str or path
        A safetensors file, of which nothing is ever executed.
    resume : bool
        Go on with the run in the file, whose values the network and the optimizer take over. Network, data, batch size,
        loss, optimizer, schedule, augmentation, seed and precision must be those of the run, as far as can be told from
        their names and numbers; ``epochs`` may be another number, and the schedule is then that of the new one from
        there on. If False, a file that is there stays until the first epoch is over.
    notes : dict, optional
        What else the file should tell, of values that JSON has.

    Raises
    ------
    TypeError
        For a ``resume`` that is neither True nor False, or notes that JSON cannot say.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from xpconv import nn, train
    >>> data = np.eye(4, dtype="float32"), [0, 1, 0, 1]
    >>> def run(epochs, path, resume):
    ...     net, kept = nn.Sequential(nn.Linear(4, 2)).initialize(seed=0), train.Checkpoint(path, resume=resume)
    ...     return train.fit(net, data, epochs=epochs, batch_size=2, checkpoint=kept, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = run(2, f"{folder}/run.safetensors", resume=False)
    ...     [record.epoch for record in run(3, f"{folder}/run.safetensors", resume=True)]
    [1, 2, 3]
    """

    def __init__(
        self, path: str | os.PathLike[str], *, resume: bool = False, notes: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.resume = Path(path), flag("Checkpoint", "resume", resume)
        self.notes = files.checked_notes("Checkpoint", notes)
        self.epoch = 0  # that the file is of, once a run has begun; 0: of none of this run
        self._made_of: dict[str, str] = {}
        self._epochs = 0

    def begin(
        self, net: Module, optimizer: Optimizer, made_of: dict[str, str], epochs: int, tell: Callable[[str], None]
    ) -> History:
        """Take up the run in the file, if that is wanted; the epochs it has. All that cannot be is refused here."""
        self._made_of, self._epochs, self.epoch = made_of, epochs, 0
        if not self.path.parent.is_dir():
            raise FileError(message("fit", f"there is no folder for the checkpoint {str(self.path)!r}."))
        if self.path.is_dir():
            rule, remedy = f"the checkpoint {str(self.path)!r} is a folder.", "give the path of a file."
            raise FileError(message("fit", rule, "", remedy))
        files.check_made("fit", net)
        if not self.resume:
            self._content(net, optimizer, History())  # a dtype that the format lacks is told before any work
            return History()
        kept = read(self.path)
        self._compare(kept.made_of)
        done = len(kept.history)
        if done > epochs:
            rule = f"the run in {str(self.path)!r} has more epochs than are wanted."
            raise FileError(
                message("fit", rule, f"there: {done} · epochs={epochs}", "give epochs that it does not have.")
            )
        self._take(net, optimizer, kept)
        self.epoch = done
        all_of_them = "the one epoch is" if epochs == 1 else f"all {epochs} epochs are"
        there = f"{all_of_them} there already" if done == epochs else f"going on after epoch {done}"
        moved = epochs != kept.epochs and made_of["schedule"] != _words(None)
        tell(there + (f"; the schedule is now that of {epochs} epochs, not of {kept.epochs}" if moved else ""))
        return kept.history

    def keep(self, net: Module, optimizer: Optimizer, history: History) -> None:
        """Write the run as it is after its last epoch; where that cannot be, the training goes on with a warning."""
        if not (math.isfinite(history[-1].loss) and is_finite(net)):
            return
        try:
            tensors.write(self.path, self._content(net, optimizer, history))
            self.epoch = history[-1].epoch
        except OSError as error:
            rule, evidence = f"epoch {history[-1].epoch} is not in the checkpoint.", f"{self.path}: {error.strerror}"
            warnings.warn(message("fit", rule, evidence), RuntimeWarning, stacklevel=2)

    def _content(self, net: Module, optimizer: Optimizer, history: History) -> tensors.Parts:
        """The file."""
        arrays = {f"{_NET}{name}": to_numpy(state.value) for name, state in _states(net).items()}
        arrays |= {f"{_OPTIMIZER}{name}": np.asarray(value) for name, value in optimizer.state_dict().items()}
        about = {
            "format": _FORMAT,
            "epochs": self._epochs,
            "made_of": self._made_of,
            # The seed and the name that a layer's draws follow from, and how many there were.
            "draws": {name: [*(module._key or (0, "")), module.draws()] for name, module in _drawing(net).items()},
            "history": history.as_lines(),
            "notes": self.notes,
        }
        return tensors.serialized("fit", arrays, {_KEY: json.dumps(about)})

    def _compare(self, there: dict[str, str]) -> None:
        """Refuse the run in the file if it is another one."""
        pairs = {name: (_plain(there.get(name, "")), _plain(here)) for name, here in self._made_of.items()}
        other = {name: pair for name, pair in pairs.items() if _flagless(pair[0]) != _flagless(pair[1])}
        if other:
            told = (_difference(name, *pair) for name, pair in other.items())
            rule, remedy = (
                f"the run in {str(self.path)!r} is another one.",
                "give the same, or begin anew with resume=False.",
            )
            raise FileError(message("fit", rule, "\n  ".join(told), remedy))

    def _take(self, net: Module, optimizer: Optimizer, kept: Kept) -> None:
        """Put network, optimizer and draws back to where they were."""
        arrays = tensors.arrays(self.path)

        def under(prefix: str) -> dict[str, np.ndarray]:
            return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}

        try:
            modules = net.modules()
            drawing = [(modules[name], *draws) for name, draws in kept.draws.items()]
            # To have all judged before anything is changed.
            trial = copy.copy(optimizer).load_state_dict
            judged = (
                (net.parameters(),) if len(inspect.signature(trial).parameters) > 1 else ()
            )  # one's own may take none
            trial(under(_OPTIMIZER), *judged)
            net.load_state_dict(under(_NET))
        except (ValueError, TypeError, KeyError) as error:
            raise tensors.bad(self.path, "the checkpoint is not of this network and optimizer.", str(error)) from error
        optimizer.load_state_dict(under(_OPTIMIZER))
        for module, seed, layer, draws in drawing:
            module._key = (seed, layer)
            module.restart(draws)


class Kept(NamedTuple):
    """What a checkpoint tells beside its arrays."""

    epochs: int  # that were wanted
    made_of: dict[str, str]
    draws: dict[str, tuple[int, str, int]]  # by layer: the seed and the name they follow from, and how many
    history: History
    notes: dict[str, Any]


def read(path: Path) -> Kept:
    """What a checkpoint tells, without its arrays.

    Raises
    ------
    FileError
        For a file that is not there, or is no checkpoint.
    """
    if not path.exists():
        remedy = "begin a run with resume=False; in a script for both, resume=os.path.exists(path)."
        raise tensors.bad(path, "there is no checkpoint to go on from.", "", remedy)
    try:
        about = json.loads(tensors.metadata(path)[_KEY])
        if about["format"] != _FORMAT:
            raise ValueError(f"version {about['format']} of the format; this xpconv reads version {_FORMAT}")
        history = History.of_lines(about["history"], path)
        if not history or [record.epoch for record in history] != [*range(1, len(history) + 1)]:
            raise ValueError("its epochs are not 1, 2, ...")
        made_of = {name: str(words) for name, words in about["made_of"].items()}
        draws = {name: (int(seed), str(layer), int(n)) for name, (seed, layer, n) in about["draws"].items()}
        return Kept(int(about["epochs"]), made_of, draws, history, dict(about["notes"]))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        evidence = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise tensors.bad(path, "the file is no checkpoint that this version of xpconv wrote.", evidence) from error


def ingredients(
    net: Module, feed: Feed, objective: Objective, optimizer: Optimizer, schedule: Any, augment: Any, seed: int
) -> dict[str, str]:
    """What a run is made of, by the names of `fit`'s parameters: the same words, the same run."""
    frozen = [name for name, parameter in net.parameters().items() if not parameter.trainable]
    name = _words(objective.op) if objective.own else objective.op.__name__
    loss = [name, *(f"{name}={value!r}" for name, value in sorted(objective.options.items()))]
    return {
        "network": _without_places(tree(net, marked=False)) + (f"\nfrozen: {', '.join(frozen)}" if frozen else ""),
        "images": feed.images.digest(),
        "labels": feed.targets.digest(),
        "batch_size": str(feed.batch_size),
        "loss": ", ".join(loss),
        "optimizer": _words(optimizer),
        "schedule": _words(schedule),
        "augment": _words(augment),
        "seed": str(seed),
        "precision": current().precision,
    }


def is_finite(net: Module) -> bool:
    """Whether all numbers of a network are: one that diverged must not take the place of what was kept before."""
    return all(np.isfinite(to_numpy(state.value)).all() for state in _states(net).values())


def _states(net: Module) -> dict[str, Any]:
    return net.parameters() | net.buffers()


def _drawing(net: Module) -> dict[str, Any]:
    """The layers that have drawn random numbers."""
    return {name: module for name, module in net.modules().items() if module.draws()}


def _words(thing: object) -> str:
    """How a thing shows itself, without the place in memory where this process has it."""
    return _without_places(repr(thing))


def _without_places(text: str) -> str:
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text)


def _plain(words: str) -> str:
    """What files of before tell in other words: NumPy's numbers, which layers once kept as they were given, and nothing
    of clipping, which there was none of."""
    unclipped = words.replace(", clip_norm=None", "")
    return re.sub(r"\bnp\.(?:\w+\(([^()]*)\)|(True|False)_)", r"\1\2", unclipped)


def _flagless(words: str) -> str:
    """True and False as 1 and 0, which layers and optimizers once took, and kept, for them."""
    return re.sub(r"\bTrue\b", "1", re.sub(r"\bFalse\b", "0", words))


def _difference(name: str, there: str, here: str) -> str:
    """The first line in which two differ."""
    lines = zip((there + "\n").split("\n"), (here + "\n").split("\n"), strict=False)
    was, now = next(
        ((was.strip(), now.strip()) for was, now in lines if _flagless(was) != _flagless(now)), ("shorter", "longer")
    )
    return f"{name}: {was or 'nothing'} there · {now or 'nothing'} here"
