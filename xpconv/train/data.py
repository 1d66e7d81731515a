"""Data sets: images (N, H, W, C) in 0..1 with class labels, from a name or from files."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xpconv.errors import describe
from xpconv.train import folder, idx
from xpconv.train.common import FINITE, bad_data, bad_file, label_remedy, optional, told_faults, told_labels

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # "train", and "test" where there is one: images, labels

# Every fifth image of each class is held out where a source has no test images of its own.
_FIFTH = 5

# Names of the arrays in an .npz, as they are tried: images and labels for training, then for testing.
_NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels"),
    ("x", "y"),
)


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """Images ``(N, H, W, C)`` float32 in 0..1 and labels ``(N,)`` int64, for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        arrays = (f"{name}={getattr(self, name).shape}" for name in self.__slots__[:4])
        return f"Dataset({', '.join(arrays)}, {len(self.class_names)} classes)"


def load(spec: str | os.PathLike[str], *, size: int | tuple[int, int] | None = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec : str or path
        - ``"digits"``: the 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn [1]_.
        - an ``.npz`` with arrays ``x_train, y_train, x_test, y_test``, or ``train_images, train_labels, test_images,
          test_labels``, or ``images, labels``, or ``x, y``;
        - a folder of IDX files of the MNIST family, plain or ``.gz``;
        - a folder with one sub-folder of image files per class, or a ``train`` folder of such and beside it, where
          there are any, ``test`` or ``val``.
    size : int or (height, width), optional
        What to resize image files to; without it those of a folder must all have one size. Arrays take none.

    Returns
    -------
    Dataset
        Integer pixels are scaled to 0..1 (uint8 by 255, uint16 by 65535); floating-point ones are taken as they are.
        Where the source has no test images, every fifth image of each class is held out, always the same ones.

    Raises
    ------
    FileError
        For a file that is missing, truncated or of another kind; the message names it.
    ValueError
        For arrays that do not fit together; for a ``size`` where there are no image files.
    ImportError
        Where scikit-learn (digits) or Pillow (image files) is missing.

    References
    ----------
    .. [1] E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
       Repository, 1998.

    Examples
    --------
    >>> from xpconv import train
    >>> digits = train.load("digits")
    >>> digits.train_images.shape, digits.test_images.shape
    ((1442, 8, 8, 1), (355, 8, 8, 1))
    """
    if spec == "digits":
        _no_size("'digits'", size)
        return _dataset("digits", _digits())
    path = Path(spec)
    if not str(spec) or not path.exists():
        raise bad_file(f"{str(spec)!r} is neither a known data set nor a file or folder.", "", "known: 'digits'.")
    if path.is_file():
        _no_size(repr(str(path)), size)
        return _dataset(str(path), _npz(path))
    roles = idx.files(path)
    if roles:
        _no_size(repr(str(path)), size)
        return _dataset(str(path), idx.read_folder(path, roles))
    parts, names = folder.read_folder(path, (size, size) if isinstance(size, int) else size)
    return _dataset(str(path), parts, names)


def _no_size(source: str, size: object) -> None:
    if size is not None:
        rule = f"a size is for folders of image files, and {source} is none."
        raise bad_data(rule, f"given: size={size!r}", "leave it out; images of an array keep their size.")


def _digits() -> Parts:
    found = optional("sklearn.datasets", "the data set 'digits'").load_digits()
    return {"train": (found.images.astype(np.float32) / 16, found.target)}


def _npz(path: Path) -> Parts:
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if not start.startswith(b"PK"):  # NumPy would take it for a pickle
                raise ValueError("it holds a single array" if start == b"\x93NUM" else "it is not an .npz file")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            held = loaded.files
            names = next((names for names in _NPZ_NAMES if set(names) <= set(held)), None)
            arrays = [loaded[name] for name in names or ()]
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: an encrypted zip, or one compressed in an unknown way
        remedy = "it may be truncated, of another kind, or hold pickled objects, which are never loaded."
        raise bad_file(f"cannot read {str(path)!r} as an .npz file.", error, remedy) from error
    if not arrays:
        known = f"known: {'; '.join(', '.join(names) for names in _NPZ_NAMES)}."
        raise bad_file(
            f"{str(path)!r} lacks arrays of a known name.", f"it holds {', '.join(held) or 'nothing'}", known
        )
    return {"train": (arrays[0], arrays[1])} | ({"test": (arrays[2], arrays[3])} if len(arrays) == 4 else {})


def _dataset(source: str, parts: Parts, class_names: tuple[str, ...] | None = None) -> Dataset:
    """Bring what was read to one form, and hold out test images where there are none."""
    checked = {part: _part(f"{source} ({part})", *arrays) for part, arrays in parts.items()}
    images, labels = checked["train"]
    _check_classes(source, np.concatenate([labels for _, labels in checked.values()]))
    if "test" not in checked:
        held_out = _every_fifth(source, labels)
        checked = {"train": (images[~held_out], labels[~held_out]), "test": (images[held_out], labels[held_out])}
    train, test = checked["train"], checked["test"]
    if train[0].shape[1:] != test[0].shape[1:]:
        evidence = f"train {train[0].shape} · test {test[0].shape}"
        raise bad_data(f"{source!r}: training and test images must have one shape.", evidence)
    classes = 1 + max(int(part.max()) for part in (train[1], test[1]))
    return Dataset(*train, *test, class_names or tuple(map(str, range(classes))))


def _check_classes(source: str, labels: np.ndarray) -> None:
    """Refuse labels that are numbers of something else, such as years: each number up to the highest is a class."""
    classes = 1 + int(labels.max())
    if classes > len(labels):
        rule = f"{source!r}: labels up to {classes - 1} make {classes:,} classes, of {len(labels):,} images."
        remedy = "number the classes from 0: _, labels = np.unique(labels, return_inverse=True)."
        raise bad_data(rule, f"{len(np.unique(labels))} different labels", remedy)


def _every_fifth(source: str, labels: np.ndarray) -> np.ndarray:
    """Mark the fifth, tenth, ... image of each class, in the order given."""
    order = np.argsort(labels, kind="stable")
    within = np.empty(len(labels), np.int64)
    within[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    held_out = within % _FIFTH == _FIFTH - 1
    if not held_out.any():
        rule = f"{source!r} has too few images to hold every {_FIFTH}th of a class out for testing."
        raise bad_data(rule, f"{len(labels)} images", "add images, or give test images of their own.")
    return held_out


def _part(source: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or images.ndim not in (3, 4) or len(images) != len(labels) or not images.size:
        rule = f"{source}: needs images (N, H, W) or (N, H, W, C) and as many labels (N,), none of them empty."
        raise bad_data(rule, f"{describe('images', images)} · {told_labels(labels)}", _shape_remedy(images, labels))
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        rule = f"{source}: images seem to be channels first, (N, C, H, W)."
        remedy = "store them as (N, H, W, C): np.moveaxis(images, 1, -1)."
        raise bad_data(rule, describe("images", images), remedy)
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        found = f"; the lowest is {labels.min()}" if labels.dtype.kind in "iuf" else ""
        rule = f"{source}: labels must be integers of at least 0, one per class."
        raise bad_data(rule, f"{told_labels(labels)}{found}", label_remedy(labels))
    return unit(source, images[..., None] if images.ndim == 3 else images), labels.astype(np.int64)


def _shape_remedy(images: np.ndarray, labels: np.ndarray) -> str:
    """What would bring such shapes to what is asked for, where that can be told."""
    if images.ndim == 2 and len(images) == len(labels):
        side = math.isqrt(images.shape[1])
        height, width = (side, side) if side * side == images.shape[1] else ("height", "width")
        return f"rows of pixels become images with images.reshape(-1, {height}, {width})."
    return label_remedy(labels) if labels.ndim == 2 and len(images) == len(labels) else ""


def unit(source: str, images: np.ndarray) -> np.ndarray:
    """Pixels as float32, integers scaled to 0..1."""
    kind, top = images.dtype.kind, 65535 if images.dtype == np.uint16 else 255
    evidence, remedy = describe("images", images), ""
    if kind in "bf":
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(images, np.float32)
        faults = told_faults("images", [np.isfinite(narrow)])
        if not faults:
            return narrow
        evidence, remedy = f"{evidence}; {faults}", FINITE
    elif kind in "iu":
        if images.min() >= 0 and images.max() <= top:
            return images.astype(np.float32) / np.float32(top)
        evidence += f"; from {images.min()} to {images.max()}"
        remedy = "numbers of another range go in as images.astype('float32')."
    rule = f"{source}: pixels must be finite numbers of float32, or integers in 0..255 (uint16: 0..65535)."
    raise bad_data(rule, evidence, remedy)
