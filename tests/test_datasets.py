"""Data sets in every form, end to end: `xpconv train` learns from them, `xpconv predict` uses what it learned."""

from __future__ import annotations

import gzip
import json
import re
import struct

import numpy as np
import pytest
from PIL import Image

from xpconv.cli import main


def corners(n, seed):
    """Images of 8 x 8 pixels with a light corner, which is their class."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 120, (n, 8, 8), dtype=np.uint8), rng.integers(0, 4, n).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, :][:4, 4 * (label % 2) :][:, :4] += 130
    return images, labels


PARTS = {"train": corners(240, 0), "t10k": corners(60, 1)}


def as_npz(folder):
    (x, y), (x_test, y_test) = PARTS.values()
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return folder / "data.npz"


def as_idx(folder):
    for part, arrays in PARTS.items():
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


def as_folder(folder):
    for part, (images, labels) in zip(("train", "test"), PARTS.values(), strict=True):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / part / f"corner {label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    return folder


@pytest.mark.parametrize("form", [as_npz, as_idx, as_folder], ids=lambda form: form.__name__)
def test_a_network_learns_from_it(form, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    out = tmp_path / "run"
    assert main(["train", "--data", str(form(tmp_path / "data")), "--epochs", "6", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "240 training and 60 test images 8×8×1, 4 classes" in printed
    assert float(re.fullmatch(r"test accuracy: (\d\.\d{4})", printed.splitlines()[-1])[1]) >= 0.95
    (x_test, y_test) = PARTS["t10k"]
    Image.fromarray(x_test[0]).save(tmp_path / "one.png")
    assert main(["predict", "--json", str(out), str(tmp_path / "one.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    name = f"corner {y_test[0]}" if form is as_folder else str(y_test[0])
    assert re.search(rf'"{name}"', json.dumps(found).partition("}")[0]), found
