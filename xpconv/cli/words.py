"""Messages in the words of the command line: where a remedy names a call, the option that does the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from xpconv.errors import message

# What messages say, and what to say here; a test sees to it that all of them are still said.
INSTEAD = {
    "use_engine('auto') lets every engine of the arrays' library try.": "--engine auto lets every engine try.",
    "resize the files, or pass size=(height, width).": "bring them to one: --image-size N",
    "fit: the run in ": "--resume: the run in ",
    "give the same, or begin anew with resume=False.": "give the same, or begin anew without --resume.",
    "use_backend: ": "--backend: ",
    "use_engine: ": "--engine: ",
    "precision: must be": "--precision: must be",
}


# What is asked for less of, where memory ran out.
_LESS = {
    "train": "try a smaller --image-size or --batch-size, or fewer images.",
    "predict": "give fewer or smaller images at once.",
    "bench": "try a smaller --batch.",
}


def told(error: BaseException, options: argparse.Namespace) -> str:
    """A mistake of the user's in the words of the command line."""
    if isinstance(error, MemoryError):
        return message(options.command, "the memory does not suffice.", str(error), _LESS.get(options.command, ""))
    if isinstance(error, OSError) and error.filename:
        return _of_file(str(error.filename), error.strerror or "", getattr(options, "out", None))
    text = str(error)
    if text.startswith("load: "):  # of a data set, or of a picture
        text = text.replace("load", "--data" if options.command == "train" else options.command, 1)
    return as_options(text)


def _of_file(name: str, reason: str, out: str | None) -> str:
    """What the system says of a file; where it is the folder to be written or one above, whose option that is."""
    if out is None or Path(name) not in (Path(out), *Path(out).parents):
        return f"{name}: {reason}"
    rule = f"{out!r} cannot be made, or is no folder."
    return message("--out", rule, f"{name}: {reason}", "name a folder to write into: --out DIR")


def as_options(text: str) -> str:
    """A message with options in the place of calls, but for what the environment said."""
    if text.startswith("environment variable"):
        return text
    for said, instead in INSTEAD.items():
        text = text.replace(said, instead)
    return text
