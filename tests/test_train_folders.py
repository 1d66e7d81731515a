"""Data sets from folders of image files, and what is said of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import pictures

from xpconv.errors import FileError
from xpconv.train import data


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
