"""Pictures as a network takes them: read from image files and arrays, brought to its size and channels."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpconv.cli.model_file import Images
from xpconv.errors import FileError, message
from xpconv.train.data import unit
from xpconv.train.folder import opened, pixels

Shape = tuple[int, int, int]  # (H, W, C)

_LUMA = np.asarray([0.299, 0.587, 0.114], dtype="float32")  # ITU-R BT.601, as Pillow turns colours grey

_GREY = ("1", "L", "LA", "La", "I", "F")  # Pillow's modes of one channel

_SLACK = 0.01  # how far outside 0..1 rounding and resampling may leave a pixel


class Picture(NamedTuple):
    """One picture in the network's shape."""

    name: str
    pixels: np.ndarray  # (H, W, C) float32, 0..1
    resized_from: tuple[int, int] | None  # (height, width), where it had another size
    converted_from: str | None  # "colour" or "grey", where the network takes the other


# What full brightness usually is in arrays of numbers that are no fractions: scikit-learn's digits, 8 and 16 bits.
_FULL = (1, 16, 255, 65535)


def full_brightness(images: np.ndarray) -> float | None:
    """The number that stands for full brightness in images, judged by their highest; `None` where some are negative."""
    lowest, highest = float(images.min()), float(images.max())
    if lowest < -_SLACK:
        return None
    return float(next((full for full in _FULL if highest <= full * (1 + _SLACK)), highest))


def read(path: Path, wanted: Images) -> list[Picture]:
    """The picture of an image file, or every picture of an ``.npy`` array."""
    return _from_array(path, wanted) if path.suffix.lower() == ".npy" else [_from_file(path, wanted)]


def _from_file(path: Path, wanted: Images) -> Picture:
    from PIL import ImageOps

    shape = wanted.shape
    if wanted.full is None:
        raise _of_another_kind(path)
    with opened(path) as image:
        width, height = ImageOps.exif_transpose(image).size
        grey = image.mode in _GREY or image.mode.startswith("I;16")
        fitted = pixels(image, shape)
    resized = None if (height, width) == shape[:2] else (height, width)
    return Picture(str(path), fitted, resized, _converted(1 if grey else 3, shape[2]))


def _of_another_kind(path: Path) -> FileError:
    rule = f"{str(path)!r} holds brightnesses, and the network was trained on numbers of another kind, some negative."
    remedy = "give an .npy file of floating-point numbers that went the same way as the training images."
    return FileError(message("predict", rule, "", remedy))


def _from_array(path: Path, wanted: Images) -> list[Picture]:
    shape = wanted.shape
    try:
        with path.open("rb") as file:  # np.load leaves a file that it opened itself open where it fails
            array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an .npz file, of several arrays")
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        remedy = "it may be truncated, or hold pickled objects, which are never loaded."
        raise FileError(
            message("predict", f"cannot read {str(path)!r} as an .npy file.", str(error), remedy)
        ) from error
    last = array.shape[-1] if array.ndim == 3 else 0
    if last in (2, 4) and last != shape[2] and array.shape[1:] != shape[:2]:  # not so narrow images, surely
        rule = f"{str(path)!r} seems to hold one image whose last channel is its opacity."
        raise FileError(message("predict", rule, f"it holds {array.shape} {array.dtype}", "leave it out: a[..., :-1]."))
    single = array.ndim == 2 or last in (1, 3, shape[2])
    images = array[None] if single else array
    images = images[..., None] if images.ndim == 3 else images
    taken = {1: (1, 3)}.get(shape[2], (1, shape[2]))
    if images.ndim != 4 or images.shape[-1] not in taken or not images.size:
        rule = (
            f"{str(path)!r} must hold images (H, W), (H, W, C), (N, H, W) or (N, H, W, C), C {taken[0]} or {taken[1]}."
        )
        raise FileError(message("predict", rule, f"it holds {array.shape} {array.dtype}"))
    scaled = unit(str(path), images)
    if images.dtype.kind == "f":
        scaled = _in_units(path, scaled, wanted.full)
    elif wanted.full is None:
        raise _of_another_kind(path)
    size = images.shape[1:3]
    resized = None if size == shape[:2] else (int(size[0]), int(size[1]))
    names = [str(path)] if single else [f"{path}[{i}]" for i in range(len(images))]
    fitted, converted = (_fitted(image, shape) for image in scaled), _converted(images.shape[-1], shape[2])
    return [Picture(name, image, resized, converted) for name, image in zip(names, fitted, strict=True)]


def _converted(given: int, wanted: int) -> str | None:
    """What a picture of so many channels was, where the network takes another number."""
    return None if given == wanted else "grey" if given == 1 else "colour"


def _in_units(path: Path, images: np.ndarray, full: float | None) -> np.ndarray:
    """Numbers as the network takes them: as they are if from 0 to 1, else by the full brightness it was trained on."""
    lowest, highest = images.min(), images.max()
    if full is None or -_SLACK <= lowest <= highest <= 1 + _SLACK:
        return images
    if lowest >= -_SLACK and full > 1 and highest <= full * (1 + _SLACK):
        return images / np.float32(full)
    trained = f", or to {full:g} as the training images" if full > 1 else ""
    rule = f"{str(path)!r} must hold integers from 0 to 255, or numbers from 0 to 1{trained}."
    remedy = "divide by the value of full brightness: 255 for most images, 16 for scikit-learn's digits."
    raise FileError(message("predict", rule, f"it goes from {lowest:g} to {highest:g}", remedy))


def _fitted(image: np.ndarray, shape: Shape) -> np.ndarray:
    """(H, W, C) in 0..1, brought to a shape: channels first, then size."""
    height, width, channels = shape
    if image.shape[-1] == 3 and channels == 1:
        image = (image @ _LUMA)[..., None]
    if image.shape[:2] != (height, width):
        image = np.stack([_resized(image[..., c], (width, height)) for c in range(image.shape[-1])], axis=-1)
    return np.broadcast_to(image, shape)


def _resized(plane: np.ndarray, size: tuple[int, int]) -> Any:
    from PIL import Image

    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
