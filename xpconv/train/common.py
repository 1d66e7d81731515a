"""What the loaders of data sets share: their errors, and packages that only some of them need."""

from __future__ import annotations

import importlib
from types import ModuleType

from xpconv.errors import FileError, message


def bad_file(rule: str, evidence: object = "", remedy: str = "") -> FileError:
    """A file that cannot be read, or is not what it should be."""
    return FileError(message("load", rule, str(evidence), remedy))


def bad_data(rule: str, evidence: str = "", remedy: str = "") -> ValueError:
    """Arrays or images that do not fit together."""
    return ValueError(message("load", rule, evidence, remedy))


def optional(module: str, what: str) -> ModuleType:
    """The module; where it is missing, an `ImportError` that says what wanted it and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = f"{what} needs a package that is not here ({error})."
        raise ImportError(message("load", rule, "", "install it with: pip install 'xpconv[train]'")) from error
