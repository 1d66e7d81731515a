"""Pictures at random, and folders of IDX files of some."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pictures(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


def mnist_folder(folder: Path, *, zipped: bool = False, pattern: str = "{part}-{kind}-idx{axes}-ubyte") -> Path:
    folder.mkdir()
    for part, n in (("train", 12), ("t10k", 5)):
        for kind, array in (("images", pictures(n, 4, 3)), ("labels", (np.arange(n) % 3).astype(np.uint8))):
            name = pattern.format(part=part, kind=kind, axes=array.ndim)
            content = idx_bytes(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return folder
