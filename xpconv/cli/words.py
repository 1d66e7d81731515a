"""Messages in the words of the command line: where a remedy names a call, the option that does the same."""

from __future__ import annotations

# What messages say, and what to say here; a test sees to it that all of them are still said.
INSTEAD = {
    "use_engine('auto') lets every engine of the arrays' library try.": "--engine auto lets every engine try.",
    "resize the files, or pass size=(height, width).": "bring them to one: --image-size N",
    "use_backend: ": "--backend: ",
    "use_engine: ": "--engine: ",
    "precision: must be": "--precision: must be",
}


def as_options(text: str) -> str:
    """A message with options in the place of calls, but for what the environment said."""
    if text.startswith("environment variable"):
        return text
    for said, instead in INSTEAD.items():
        text = text.replace(said, instead)
    return text
