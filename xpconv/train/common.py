"""What the loaders of data sets share: their errors, and packages that only some of them need."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

import numpy as np

from xpconv.errors import FileError, describe, message


def bad_file(rule: str, evidence: object = "", remedy: str = "") -> FileError:
    """A file that cannot be read, or is not what it should be."""
    return FileError(message("load", rule, str(evidence), remedy))


def bad_data(rule: str, evidence: str = "", remedy: str = "") -> ValueError:
    """Arrays or images that do not fit together."""
    return ValueError(message("load", rule, evidence, remedy))


def check_part(subject: str, name: str, given: object, fits: bool, kind: str) -> None:
    """Refuse a name, or a class that was not called, where an object is wanted."""
    if not fits or isinstance(given, type):
        remedy = f"call the class: {given.__name__}(...)." if isinstance(given, type) else ""
        raise TypeError(message(subject, f"{name} must be {kind}.", f"given: {given!r}", remedy))


AN_OPTIMIZER = "an optimizer, such as train.Adam(1e-3)"
FINITE = "leave such images out, or fill the gaps with np.nan_to_num."


def told_faults(name: str, finite: Iterable[np.ndarray]) -> str:
    """How many numbers are not finite, and where the first one is, of pieces of an array; nothing where all are."""
    rows = size = wrong = 0
    first = ""
    for piece in finite:
        if not wrong and not piece.all():
            row, *rest = np.unravel_index(int(piece.argmin()), piece.shape)
            first = ", ".join(map(str, (rows + row, *rest)))
        rows, size, wrong = rows + len(piece), size + piece.size, wrong + piece.size - int(np.count_nonzero(piece))
    return f"{wrong} of {size} not finite, the first at {name}[{first}]" if wrong else ""


def told_labels(labels: np.ndarray) -> str:
    """Labels as evidence; of text, one that shows what it is."""
    if labels.dtype.kind not in "USO" or not labels.size:
        return describe("labels", labels)
    return f"labels {labels.shape} of {labels.dtype}, such as {labels.ravel()[:1].tolist()[0]!r}"


def label_remedy(labels: np.ndarray, axes: int = 1) -> str:
    """How what was given as labels becomes integers from 0, one per image, or with more axes one per pixel."""
    if labels.ndim == axes + 1:
        one_hot = f"one-hot rows become labels with labels.argmax(axis={axes})."
        return one_hot if labels.shape[-1] > 1 else "an axis of 1 goes with labels[..., 0]."
    if labels.dtype.kind == "b":
        return "cast them: labels.astype('int64')."
    if labels.dtype.kind == "f" and bool((labels == np.trunc(labels)).all()):
        return "cast them: labels.astype('int64')."
    return "number the classes from 0: _, labels = np.unique(labels, return_inverse=True)."


def optional(module: str, what: str) -> ModuleType:
    """The module; where it is missing, an `ImportError` that says what wanted it and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = f"{what} needs a package that is not here ({error})."
        raise ImportError(message("load", rule, "", "install it with: pip install 'xpconv[train]'")) from error
