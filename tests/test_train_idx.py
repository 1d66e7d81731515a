"""Data sets from folders of IDX files, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from pictures import CODES, idx_bytes, mnist_folder, pictures

from xpconv.errors import FileError
from xpconv.train import data


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "pattern",
    ["{part}-{kind}-idx{axes}-ubyte", "{part}-{kind}.idx{axes}-ubyte", "emnist-{part}-{kind}-idx{axes}-ubyte"],
)
def test_idx_folders(tmp_path: Path, zipped: bool, pattern: str) -> None:
    loaded = data.load(mnist_folder(tmp_path / "set", zipped=zipped, pattern=pattern))
    np.testing.assert_array_equal(loaded.train_images[..., 0], pictures(12, 4, 3) / np.float32(255))
    np.testing.assert_array_equal(loaded.test_images[..., 0], pictures(5, 4, 3) / np.float32(255))
    assert loaded.train_labels.tolist() == [0, 1, 2] * 4
    assert loaded.class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", CODES)
def test_every_idx_type_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    (tmp_path / "file").write_bytes(idx_bytes(array))
    read = data.idx.read(tmp_path / "file")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    assert read.dtype.isnative


def test_an_unpacked_idx_file_goes_before_its_gz(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "set")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bdamaged")
    assert len(data.load(folder).train_images) == 12


def test_idx_without_test_files_is_split(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "set")
    for path in folder.glob("t10k*"):
        path.unlink()
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(12, np.uint8)))
    assert len(data.load(folder).test_images) == 2


def test_idx_files_that_cannot_be_read(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "set")
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    faults = {
        "truncated": [whole[:-1], whole[:9], whole[:4]],
        "longer than its header says": [whole + b"\0"],
        "is not an IDX file": [b"", b"\0\0", b"PK\x03\x04", b"\0\0\x07\x01" + bytes(8), b"<html>"],
        "cannot read": [gzip.compress(whole)[:-9], b"\x1f\x8b\x08" + bytes(30)],
    }
    for said, contents in faults.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(FileError, match=said) as caught:
                data.load(folder)
            assert "train-images-idx3-ubyte" in str(caught.value)
    path.write_bytes(whole[:9])
    with pytest.raises(FileError, match="a header of 3 axes takes 16 bytes; found 9"):
        data.load(folder)


def test_a_missing_or_doubled_idx_file_is_named(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "set")
    (folder / "letters-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(FileError, match="holds more than one file of train images"):
        data.load(folder)
    (folder / "letters-train-images-idx3-ubyte").unlink()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileError, match=r"(?s)lacks the IDX file of test labels\..*found t10k-images"):
        data.load(folder)
