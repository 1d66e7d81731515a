"""Image files, one sub-folder per class: ``cats/1.png``, ``dogs/a.jpg``, or the same in ``train/`` and ``test/``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.train.common import bad_data, bad_file, optional

# What folders of parts are called, with those first that are rather held out.
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")
_NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow knows them, and needs other programs to read
_GREY = ("1", "L", "LA", "La", "F")  # modes of one channel, besides the integers of 16 and 32 bits: I, I;16, ...
_ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange height and width

Size = tuple[int, int]  # (height, width)
Part = tuple[np.ndarray, np.ndarray]
Listed = list[tuple[Path, int]]  # file, class


def read_folder(folder: Path, size: Size | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Images (N, H, W, C) float32 in 0..1 and labels of each part, and the names of the classes."""
    optional("PIL.Image", "a folder of images")
    parts = _parts(folder)
    names = tuple(path.name for path in _folders(parts["train"]))
    listed = {part: _listed(path, names) for part, path in parts.items()}
    if not listed["train"]:
        evidence = f"sub-folders: {', '.join(names) or 'none'}"
        remedy = "give a sub-folder of image files per class, an .npz, or a folder of IDX files."
        raise bad_file(f"no sub-folder of {str(parts['train'])!r} holds an image.", evidence, remedy)
    empty = set(range(len(names))) - {label for _, label in listed["train"]}
    if empty:
        rule = f"the sub-folder {names[min(empty)]!r} of {str(parts['train'])!r} holds no image, and would be a class."
        raise bad_file(rule, f"classes: {', '.join(names)}", "put images into it, or move it elsewhere.")
    shape = _shape([path for files in listed.values() for path, _ in files], size)
    return {part: _read(files, shape) for part, files in listed.items()}, names


def _parts(folder: Path) -> dict[str, Path]:
    """The folder itself, or where its sub-folders are the parts of a data set, those to train and test on."""
    below = {path.name.lower(): path for path in _folders(folder)}
    if not below.keys() & set(_TRAIN_NAMES) or below.keys() - {*_TRAIN_NAMES, *_TEST_NAMES}:
        return {"train": folder}
    train, test = ([below[name] for name in names if name in below] for names in (_TRAIN_NAMES, _TEST_NAMES))
    return {"train": train[0]} | ({"test": test[0]} if test else {})


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listed(folder: Path, names: tuple[str, ...]) -> Listed:
    """Every image file of a part with its class; files of other kinds, such as notes, are passed over."""
    from PIL import Image

    unknown = [path.name for path in _folders(folder) if path.name not in names]
    if unknown:
        rule = f"{str(folder)!r} has a class {unknown[0]!r} that the training images lack."
        raise bad_file(rule, f"classes: {', '.join(names)}", "both parts need the same sub-folders.")
    formats = Image.registered_extensions()
    suffixes = {suffix for suffix, kind in formats.items() if kind in Image.OPEN and kind not in _NOT_PICTURES}
    return [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _shape(paths: list[Path], size: Size | None) -> tuple[int, int, int]:
    """(H, W, C) of all images, from their headers: one channel if every one is grey, else three."""
    first, channels = size, 1
    for path in paths:
        with opened(path) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                width, height = height, width
            if image.mode not in _GREY and not image.mode.startswith("I"):
                channels = 3
        first = first or (height, width)
        if size is None and (height, width) != first:
            seen = f"{str(path)!r} has {height} x {width}, {str(paths[0])!r} has {first[0]} x {first[1]}"
            remedy = "resize the files, or pass size=(height, width)."
            raise bad_data("the images must all have one size.", f"{seen} (height x width)", remedy)
    assert first is not None
    return (*first, channels)


def _read(files: Listed, shape: tuple[int, int, int]) -> Part:
    images = np.empty((len(files), *shape), np.float32)
    for i, (path, _) in enumerate(files):
        with opened(path) as image:
            images[i] = pixels(image, shape)
    return images, np.asarray([label for _, label in files], np.int64)


def pixels(image: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """An image upright, in the wanted size and channels, scaled to 0..1."""
    from PIL import Image, ImageOps

    height, width, channels = shape
    wide = image.mode.startswith("I") or image.mode == "F"  # only mode F keeps more than 8 bits
    top = (1 if image.mode == "F" else 65535) if wide else 255
    upright = ImageOps.exif_transpose(image).convert("F" if wide else "L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    scaled = np.asarray(upright, np.float32).reshape(height, width, -1) / np.float32(top)
    return np.broadcast_to(scaled, shape)  # grey among colours becomes three equal channels


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An image file; whatever goes wrong as it is read becomes an error that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise bad_file(f"there is no file {str(path)!r}.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_file(
            f"cannot read the image {str(path)!r}.", error, "it may be truncated, or not an image."
        ) from error
