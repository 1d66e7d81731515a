"""Data sets from every kind of source, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from xpconv.errors import FileError
from xpconv.train import data
from xpconv.train.common import told_faults

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


# -- IDX -----------------------------------------------------------------------------------------------------------


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


# -- folders of images ---------------------------------------------------------------------------------------------


def image_folder(folder: Path, sizes: dict[str, list[tuple[int, int]]], mode: str = "L", suffix: str = "png") -> Path:
    image = pytest.importorskip("PIL.Image")
    for name, of_class in sizes.items():
        (folder / name).mkdir(parents=True)
        for i, (height, width) in enumerate(of_class):
            pixels = pictures(1, height, width, 3, seed=i)[0]
            image.fromarray(pixels).convert(mode).save(folder / name / f"{i}.{suffix}")
    return folder


def test_image_folders(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", {"dogs": [(4, 5)] * 6, "cats": [(4, 5)] * 5}, "RGB")
    (folder / ".hidden").mkdir()
    (folder / "cats" / "notes.txt").write_text("not an image")
    (folder / "readme.md").write_text("not a class")
    loaded = data.load(folder)
    assert loaded.class_names == ("cats", "dogs")
    assert loaded.train_images.shape == (9, 4, 5, 3)
    assert loaded.train_labels.tolist() == [0] * 4 + [1] * 5
    np.testing.assert_array_equal(loaded.train_images[0], pictures(1, 4, 5, 3)[0] / np.float32(255))
    np.testing.assert_array_equal(loaded.test_images[1], pictures(1, 4, 5, 3, seed=4)[0] / np.float32(255))


def test_image_folders_with_a_test_part(tmp_path: Path) -> None:
    image_folder(tmp_path / "set" / "train", {"a": [(3, 3)] * 2, "b": [(3, 3)]})
    image_folder(tmp_path / "set" / "Test", {"b": [(3, 3)] * 2})
    loaded = data.load(tmp_path / "set")
    assert loaded.train_images.shape == (3, 3, 3, 1)
    assert loaded.test_labels.tolist() == [1, 1]
    assert loaded.class_names == ("a", "b")
    image_folder(tmp_path / "set" / "Test", {"c": [(3, 3)]})
    with pytest.raises(FileError, match="has a class 'c' that the training images lack"):
        data.load(tmp_path / "set")


def test_one_image_of_another_size_is_named_or_resized(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", {"a": [(4, 4)] * 5, "b": [(4, 4), (4, 4), (6, 3)]})
    with pytest.raises(
        ValueError, match=r"(?s)must all have one size\..*b.2\.png' has 6 x 3, .*a.0\.png' has 4 x 4.*size="
    ):
        data.load(folder)
    assert data.load(folder, size=5).train_images.shape[1:] == (5, 5, 1)
    assert data.load(folder, size=(2, 3)).train_images.shape[1:] == (2, 3, 1)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    folder = image_folder(tmp_path / "set", {"a": [(8, 8)] * 5}, mode, "tiff")
    images = data.load(folder).train_images
    assert images.shape[-1] == channels
    assert images.min() >= 0
    assert 0.4 < images.max() <= 1
    truth = np.mean(np.stack([pictures(1, 8, 8, 3, seed=i)[0] for i in range(4)])) / 255
    assert abs(images.mean() - truth) < 0.1


def test_one_colour_image_makes_all_rgb_and_deep_grey_keeps_its_bits(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = image_folder(tmp_path / "set", {"a": [(4, 4)] * 5})
    deep = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369
    image.fromarray(deep).save(folder / "a" / "0.png")
    np.testing.assert_allclose(data.load(folder).train_images[0, :, :, 0], deep / 65535, rtol=1e-6)
    image_folder(folder, {"b": [(4, 4)] * 2}, "RGB")
    images = data.load(folder).train_images
    assert images.shape[-1] == 3
    np.testing.assert_array_equal(images[0, :, :, 0], images[0, :, :, 2])


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    exif = image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show
    lying = np.zeros((2, 3), np.uint8)
    lying[:, 0] = 255
    for i in range(5):
        image.fromarray(lying).save(tmp_path / "a" / f"{i}.png", exif=exif)
    images = data.load(tmp_path).train_images
    assert images.shape == (4, 3, 2, 1)
    assert images[0, :, :, 0].tolist() == [[1, 1], [0, 0], [0, 0]]


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", {"a": [(40, 40)] * 5})
    path = folder / "a" / "3.png"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"load: cannot read the image '.*3\.png'"):
            data.load(folder)


def test_a_folder_without_images(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        with pytest.raises(FileError, match=r"(?s)no sub-folder of .* holds an image\..*IDX"):
            data.load(folder)


def test_a_class_without_images(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cats": [(4, 4)], "dogs": [(4, 4)]})
    (tmp_path / "notes").mkdir()
    with pytest.raises(FileError, match=r"(?s)the sub-folder 'notes' of .* holds no image.*move it elsewhere"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("names", "held_out"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("Training", "validation"), "validation")],
)
def test_parts_of_an_image_folder(tmp_path: Path, names: tuple[str, ...], held_out: str) -> None:
    for i, name in enumerate(names):
        image_folder(tmp_path / name, {"cats": [(4, 4)] * (i + 1), "dogs": [(4, 4)] * (i + 1)})
    loaded = data.load(tmp_path)
    assert loaded.class_names == ("cats", "dogs")
    assert len(loaded.train_labels) == 2
    assert len(loaded.test_labels) == 2 * (names.index(held_out) + 1)


def test_a_lone_train_folder_and_classes_that_are_called_like_parts(tmp_path: Path) -> None:
    image_folder(tmp_path / "one" / "train", {"cats": [(4, 4)] * 5, "dogs": [(4, 4)] * 5})
    loaded = data.load(tmp_path / "one")
    assert (loaded.class_names, len(loaded.train_labels), len(loaded.test_labels)) == (("cats", "dogs"), 8, 2)
    image_folder(tmp_path / "two", {"train": [(4, 4)] * 5, "tram": [(4, 4)] * 5})
    assert data.load(tmp_path / "two").class_names == ("train", "tram")


def test_what_is_no_picture_is_passed_over(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cats": [(4, 4)] * 5})
    for name in ("notes.pdf", "plot.eps", "raw.h5", ".hidden.png", ".thumbnails/1.png", "folder.png/readme"):
        (tmp_path / "cats" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cats" / name).write_text("no picture")
    loaded = data.load(tmp_path)
    assert len(loaded.train_labels) + len(loaded.test_labels) == 5


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
