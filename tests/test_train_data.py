"""Data sets of digits and from .npz files, and what is said of arrays that do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import mnist_folder, pictures

from xpconv.errors import FileError
from xpconv.train import data
from xpconv.train.common import told_faults

# -- digits --------------------------------------------------------------------------------------------------------


def test_digits_are_split_the_same_way_every_time() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits, raw = data.load("digits"), datasets.load_digits()
    assert digits.train_images.dtype == np.float32
    assert digits.train_labels.dtype == np.int64
    assert digits.class_names == tuple("0123456789")
    for label in range(10):
        of_class = raw.images[raw.target == label] / 16
        np.testing.assert_array_equal(digits.test_images[digits.test_labels == label, :, :, 0], of_class[4::5])
        kept = np.delete(of_class, slice(4, None, 5), axis=0)
        np.testing.assert_array_equal(digits.train_images[digits.train_labels == label, :, :, 0], kept)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    (tmp_path / "cats").mkdir()
    for spec, what in (("digits", "the data set 'digits'"), (tmp_path, "a folder of images")):
        with pytest.raises(ImportError, match=rf"(?s)load: {what} needs a package .*pip install 'xpconv\[train\]'"):
            data.load(spec)


# -- npz -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_npz_with_test_images(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = (pictures(6, 5, 4), np.arange(6) % 2, pictures(2, 5, 4, seed=1), np.array([[0], [1]], np.int32))
    np.savez(tmp_path / "set.npz", **dict(zip(names, arrays, strict=True)))
    loaded = data.load(tmp_path / "set.npz")
    np.testing.assert_array_equal(loaded.train_images, (arrays[0] / np.float32(255))[..., None])
    np.testing.assert_array_equal(loaded.test_images, (arrays[2] / np.float32(255))[..., None])
    assert loaded.test_labels.tolist() == [0, 1]
    assert loaded.class_names == ("0", "1")


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
def test_npz_without_test_images_holds_every_fifth_of_a_class_out(tmp_path: Path, names: tuple[str, str]) -> None:
    labels = np.array([0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 1])
    images = np.arange(12, dtype=np.float64).reshape(12, 1, 1, 1)
    np.savez_compressed(tmp_path / "set.npz", **dict(zip(names, (images, labels), strict=True)))
    loaded = data.load(tmp_path / "set.npz")
    assert loaded.test_images.ravel().tolist() == [8, 9]
    assert loaded.train_images.ravel().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert loaded.train_images.dtype == np.float32


@pytest.mark.parametrize(
    ("pixels", "scaled"),
    [
        (np.array([0, 255], np.uint8), [0, 1]),
        (np.array([0, 65535], np.uint16), [0, 1]),
        (np.array([0, 51], np.int64), [0, 0.2]),
        (np.array([False, True]), [0, 1]),
        (np.array([-1.5, 2.0], np.float16), [-1.5, 2.0]),
    ],
)
def test_integer_pixels_are_scaled_by_their_type(tmp_path: Path, pixels: np.ndarray, scaled: list[float]) -> None:
    np.savez(tmp_path / "set.npz", x=np.tile(pixels, 5).reshape(5, 1, 2, 1), y=np.zeros(5, int))
    np.testing.assert_allclose(data.load(tmp_path / "set.npz").test_images.ravel(), scaled, rtol=1e-7)


def test_a_data_set_shows_its_shapes() -> None:
    part = np.zeros((2, 4, 4, 1)), np.zeros(2, int)
    shown = "train_images=(2, 4, 4, 1), train_labels=(2,), test_images=(2, 4, 4, 1), test_labels=(2,), 1 classes"
    assert repr(data.Dataset(*part, *part, ("a",))) == f"Dataset({shown})"


BAD_ARRAYS = {
    "lengths": (pictures(6, 4, 4), np.arange(5), r"needs images \(N, H, W\) or .* as many labels"),
    "empty": (pictures(0, 4, 4), np.arange(0), r"none of them empty"),
    "one-hot": (pictures(6, 4, 4), np.eye(6), r"(?s)as many labels \(N,\).*labels\.argmax\(axis=1\)"),
    "flat": (pictures(6, 16), np.arange(6), r"(?s)needs images \(N, H, W\).*images\.reshape\(-1, 4, 4\)"),
    "flat and wide": (pictures(6, 15), np.arange(6), r"images\.reshape\(-1, height, width\)"),
    "channels first": (pictures(6, 3, 8, 8), np.arange(6), r"(?s)channels first.*moveaxis"),
    "negative label": (pictures(6, 4, 4), np.arange(6) - 1, r"(?s)labels must be integers of at least 0.*lowest is -1"),
    "float labels": (pictures(6, 4, 4), np.arange(6.0), r"(?s)labels must be integers.*labels\.astype\('int64'\)"),
    "halves": (pictures(6, 4, 4), np.arange(6) + 0.5, r"(?s)labels must be integers.*np\.unique"),
    "text labels": (pictures(6, 4, 4), np.array(list("abcdef")), r"(?s)labels \(6,\) of <U1, such as 'a'.*np\.unique"),
    "nan": (
        np.full((6, 4, 4), np.nan),
        np.arange(6),
        r"(?s)96 of 96 not finite, .* images\[0, 0, 0, 0\].*nan_to_num",
    ),
    "wide integers": (np.full((6, 4, 4), 256), np.arange(6), r"(?s)integers in 0..255.*from 256 to 256"),
    "text pixels": (np.full((6, 4, 4), "a"), np.arange(6), r"pixels must be finite"),
    "too few": (pictures(6, 4, 4), np.arange(6), r"too few images to hold every 5th of a class out"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, case: str) -> None:
    images, labels, said = BAD_ARRAYS[case]
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=said):
        data.load(tmp_path / "set.npz")


def test_parts_must_share_a_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x_train=pictures(4, 5, 5), y_train=[0] * 4, x_test=pictures(2, 6, 6), y_test=[0] * 2)
    with pytest.raises(ValueError, match=r"(?s)must have one shape\..*train \(4, 5, 5, 1\) · test \(2, 6, 6, 1\)"):
        data.load(tmp_path / "set.npz")


def test_npz_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=pictures(50, 9, 9), y=np.zeros(50, int))
    whole = (tmp_path / "whole.npz").read_bytes()
    damaged = whole[:1000] + bytes(50) + whole[1050:]
    np.savez(tmp_path / "object.npz", x=np.array([{}, 1], object), y=np.zeros(2, int))
    np.save(tmp_path / "single.npy", pictures(3, 3))
    for name, content in (("cut", whole[:2000]), ("damaged", damaged), ("text", b"hello"), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in ("cut.npz", "damaged.npz", "text.npz", "empty.npz", "object.npz", "single.npy"):
        with pytest.raises(FileError, match=rf"load: cannot read '.*{name}' as an .npz file\."):
            data.load(tmp_path / name)
    np.savez(tmp_path / "names.npz", a=1, b=2)
    with pytest.raises(FileError, match=r"(?s)lacks arrays of a known name\..*it holds a, b.*x_train"):
        data.load(tmp_path / "names.npz")


def test_a_spec_that_is_nothing() -> None:
    with pytest.raises(FileError, match="load: 'digitz' is neither a known data set nor a file or folder"):
        data.load("digitz")


def test_a_size_is_for_image_files_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=pictures(5, 4, 4), y=np.zeros(5, int))
    for spec in ("digits", tmp_path / "a.npz", mnist_folder(tmp_path / "idx")):
        with pytest.raises(ValueError, match="a size is for folders of image files"):
            data.load(spec, size=4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(10) % 3 + 2020, r"labels up to 2022 make 2,023 classes, of 10 images(.|\n)*np\.unique"),
        (np.arange(10) % 3 * 1.0, r"labels\.astype\('int64'\)"),
    ],
)
def test_labels_that_number_no_classes_say_what_to_do(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "a.npz", x=pictures(10, 4, 4), y=labels)
    with pytest.raises(ValueError, match=said):
        data.load(tmp_path / "a.npz")


def test_numbers_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((10, 4, 4), 1e300), y=np.arange(10) % 2)
    with pytest.raises(ValueError, match="must be finite"):
        data.load(tmp_path / "a.npz")


def test_other_files_than_npz_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3")
    np.savez(tmp_path / "a.npz", x=pictures(10, 4, 4), y=np.arange(10) % 2)
    archive = bytearray((tmp_path / "a.npz").read_bytes())
    archive[6] |= 1  # the local header and its copy in the directory: encrypted
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(archive)
    with pytest.raises(FileError, match="it is not an"):
        data.load(tmp_path / "a.txt")
    with pytest.raises(FileError, match="encrypted"):
        data.load(tmp_path / "locked.npz")
    with pytest.raises(FileError, match="neither a known data set"):
        data.load("")


def test_faults_are_counted_and_placed_through_pieces():
    finite = np.ones((5, 2, 3), dtype=bool)
    assert told_faults("images", [finite, finite[:2]]) == ""
    finite[3, 1, 2] = finite[4, 0, 0] = False
    pieces = iter([np.ones((2, 2, 3), dtype=bool), finite])
    assert told_faults("images", pieces) == "2 of 42 not finite, the first at images[5, 1, 2]"
