"""``xpconv train --resume``: the options of the run that goes on, and which of those given now are at odds with it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpconv.cli.console import UsageError
from xpconv.cli.options import TRAINING
from xpconv.errors import FileError, message
from xpconv.settings import Settings
from xpconv.train.checkpoint import Kept, read

_LATER = {"clip_norm": None}  # what runs of before do not tell, and did
_MAY_DIFFER = ("data", "epochs")  # a path may be another one to the same images, which `fit` compares


def settled(options: argparse.Namespace, path: Path) -> tuple[argparse.Namespace, Kept | None]:
    """The options with those that were not given filled in, and what the checkpoint tells of a run that goes on."""
    filled, kept = dict(TRAINING), _kept(path) if options.resume else None
    if kept is not None:
        filled |= _LATER | kept.notes["options"]
        _check(options, filled, kept)
    given = {name: value for name, value in vars(options).items() if value is not None}
    return argparse.Namespace(**{**vars(options), **filled, **given}), kept


def notes(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What `settled` reads in the checkpoint of a run."""
    chosen = {name: getattr(options, name) for name in TRAINING}
    return {"options": {**chosen, "precision": settings.precision}, "compute": computed_by(settings)}


def computed_by(settings: Settings) -> str:
    """What may differ between two parts of a run, whose results are the same but for rounding."""
    return f"backend {settings.backend}, engine {','.join(settings.engine) if settings.engine else 'auto'}"


def replaced(path: Path) -> str:
    """What a new run takes the place of, in words."""
    earlier, kept = ", in place of an earlier run's", readable(path)
    if kept is None or len(kept.history) == kept.epochs:
        return earlier
    return f"{earlier} ({len(kept.history)} of {kept.epochs} epochs; --resume goes on with it)"


def readable(path: Path) -> Kept | None:
    """What the checkpoint of an earlier run tells, if there is one that can be read."""
    try:
        return read(path)
    except (FileError, OSError):
        return None


def _kept(path: Path) -> Kept:
    """What the checkpoint tells."""
    if not path.exists():
        rule, evidence = f"there is no run to go on with in {str(path.parent)!r}.", f"there is no {path}"
        raise UsageError(message("--resume", rule, evidence, "name its folder, --out DIR, or leave out --resume."))
    kept = read(path)
    about = kept.notes.get("options")
    if not isinstance(about, dict) or {*_LATER, *about} != {*TRAINING, "precision"} or "compute" not in kept.notes:
        rule = f"{str(path)!r} is of no run of `xpconv train`."
        raise UsageError(message("--resume", rule, "", "go on with it where it was begun, by train.fit."))
    return kept


def _check(options: argparse.Namespace, there: dict[str, Any], kept: Kept) -> None:
    """Refuse options that would make it another run."""
    given = {name: getattr(options, name) for name in there if name not in _MAY_DIFFER}
    other = {name: value for name, value in given.items() if value is not None and value != there[name]}
    if other:
        rule = f"the run in {options.out!r} is another one."
        told = (f"--{name.replace('_', '-')}: {there[name]} there, {value} here" for name, value in other.items())
        remedy = "leave these options out, or begin anew without --resume."
        raise UsageError(message("--resume", rule, "\n  ".join(told), remedy))
    done = len(kept.history)
    if options.epochs is not None and options.epochs < done:
        rule, evidence = f"the run in {options.out!r} has {done} epochs already.", f"given: {options.epochs}"
        raise UsageError(message("--epochs", rule, evidence, "give as many or more, or begin anew without --resume."))
