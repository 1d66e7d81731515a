"""`xpconv predict`: its answers, and files that it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command import xpconv
from nets import corners
from PIL import Image

from xpconv import exchange, nn
from xpconv.cli import main, model_file


def test_predict_finds_the_right_classes(trained, tmp_path, capsys):
    images, labels = corners(3, seed=5)
    Image.fromarray(images[0]).save(tmp_path / "first.png")
    Image.fromarray(images[1]).convert("RGB").resize((24, 16), Image.Resampling.NEAREST).save(tmp_path / "2.png")
    np.save(tmp_path / "third.npy", images[2].astype(np.float64) / 255)
    names = [str(tmp_path / name) for name in ("first.png", "2.png", "third.npy")]
    assert main(["predict", str(trained[0] / "model.safetensors"), *names]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "class", "probability", "second", "probability", "third", "probability"]
    assert [line.split()[0] for line in lines] == names
    assert [int(line.split()[1]) for line in lines] == labels.tolist()
    assert lines[1].endswith("resized from 16×24 to 8×8, from colour to grey")
    assert len({re.search(r"\s\d +[01]\.\d{4}", line).start() for line in lines}) == 1, "aligned"


def test_predict_answers_for_the_files_that_can_be_read(trained, tmp_path, capsys):
    Image.fromarray(corners(1)[0][0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    names = [str(tmp_path / name) for name in ("bad.png", "good.png", "none.npy")]
    assert main(["predict", str(trained[0]), *names, "--json"]) == 2
    shown = capsys.readouterr()
    assert [answer["image"] for answer in json.loads(shown.out)] == names[1:2]
    assert f"error: predict: cannot read the image {names[0]!r}" in shown.err
    assert f"error: {names[2]}: No such file" in shown.err


def test_predict_answers_machines_in_json(trained, tmp_path):
    images, labels = corners(4, seed=6)
    np.save(tmp_path / "stack.npy", images)
    done = xpconv("predict", trained[0] / "model.safetensors", tmp_path / "stack.npy", "--json")
    answers = json.loads(done.stdout)
    assert [answer["image"] for answer in answers] == [f"{tmp_path / 'stack.npy'}[{i}]" for i in range(4)]
    assert [int(answer["classes"][0]["class"]) for answer in answers] == labels.tolist()
    assert all(answer["resized_from"] is None for answer in answers)
    for answer in answers:
        chances = [best["probability"] for best in answer["classes"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1, abs=1e-5)  # of three classes, all


def test_a_picture_of_other_colours_than_the_network_takes_is_told(trained, tmp_path, capsys):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    names = [str(tmp_path / name) for name in ("colour.png", "grey.png", "colour.npy", "grey.npy")]
    for name, given in zip(names, (pixels, pixels[..., 0]) * 2, strict=True):
        np.save(name, given) if name.endswith("npy") else Image.fromarray(given).save(name)
    model = str(trained[0] / "model.safetensors")
    assert main(["predict", model, *names, "--json"]) == 0
    was = [answer["converted_from"] for answer in json.loads(capsys.readouterr().out)]
    assert was == ["colour", None, "colour", None]
    assert main(["predict", model, *names]) == 0
    assert [line.endswith("from colour to grey") for line in capsys.readouterr().out.splitlines()[1:]] == [
        True,
        False,
    ] * 2


def test_an_array_and_an_image_file_of_the_same_pixels_get_the_same_answer(trained, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.save(tmp_path / "array.npy", pixels)
    names = [str(tmp_path / name) for name in ("image.png", "array.npy")]
    assert main(["predict", str(trained[0] / "model.safetensors"), *names, "--json"]) == 0
    image, array = json.loads(capsys.readouterr().out)
    assert image["resized_from"] == array["resized_from"] == [11, 7]
    for one, other in zip(image["classes"], array["classes"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=0.02)  # Pillow rounds to 8 bits on its way


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (np.zeros((8, 8)), [""]),
        (np.zeros((8, 8, 1)), [""]),
        (np.zeros((2, 8, 8), "uint8"), ["[0]", "[1]"]),
        (np.zeros((2, 8, 8, 3), "float32"), ["[0]", "[1]"]),
    ],
    ids=["H W", "H W 1", "N H W", "N H W 3"],
)
def test_arrays_may_hold_one_image_or_several(trained, tmp_path, capsys, array, names):
    path = tmp_path / "a.npy"
    np.save(path, array)
    assert main(["predict", str(trained[0] / "model.safetensors"), str(path), "--json"]) == 0
    assert [answer["image"] for answer in json.loads(capsys.readouterr().out)] == [f"{path}{name}" for name in names]


@pytest.mark.parametrize("shape", [(6, 6, 4), (6, 6, 2)])
def test_an_array_with_opacity_is_not_taken_for_a_stack_of_narrow_images(trained, tmp_path, capsys, shape):
    path = tmp_path / "rgba.npy"
    np.save(path, np.zeros(shape, "uint8"))
    assert main(["predict", str(trained[0] / "model.safetensors"), str(path)]) == 2
    assert "leave it out: a[..., :-1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no image", "cannot read"),
        (b"", "cannot read"),
        (np.zeros((2, 8, 8, 5)), "it holds (2, 8, 8, 5) float64"),
        (np.zeros(8), "it holds (8,) float64"),
        (np.full((8, 8), np.nan), "must be finite"),
        (np.full((8, 8), 16.0), "divide by the value of full brightness"),
        (np.full((8, 8), None), "pickled objects"),
    ],
    ids=["bytes", "nothing", "five channels", "one axis", "nan", "0 to 16", "objects"],
)
def test_predict_refuses_what_is_no_image(trained, tmp_path, capsys, content, said):
    path = tmp_path / ("x.png" if isinstance(content, bytes) else "x.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    assert main(["predict", str(trained[0] / "model.safetensors"), str(path)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert str(path) in shown


def test_predict_refuses_archives_and_files_that_are_not_there(trained, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", np.zeros((8, 8)))
    (tmp_path / "archive.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    (tmp_path / "broken.npy").write_bytes(b"PK\x03\x04 and no more")
    for name, said in (
        ("archive.npy", "it is an .npz file"),
        ("broken.npy", "cannot read"),
        ("none.npy", "No such file"),
        ("none.png", "there is no file"),
    ):
        assert main(["predict", str(trained[0] / "model.safetensors"), str(tmp_path / name)]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert str(tmp_path / name) in shown


def test_predict_takes_the_folder_of_a_run(trained, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros((8, 8)))
    assert main(["predict", str(trained[0]), str(tmp_path / "a.npy")]) == 0
    assert main(["predict", str(tmp_path), str(tmp_path / "a.npy")]) == 2
    assert "is a folder without a model.safetensors" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:invalid value")
def test_predict_says_nan_as_machines_can_read_it(trained, tmp_path, capsys):
    net, takes = model_file.load(trained[0] / "model.safetensors")
    weight = net.parameters()["conv1.weight"]
    weight.assign(np.full_like(weight.value, np.nan))
    model_file.save(net, takes, tmp_path / "broken.safetensors")
    np.save(tmp_path / "a.npy", np.zeros((8, 8)))
    asked = ["predict", str(tmp_path / "broken.safetensors"), str(tmp_path / "a.npy")]
    assert main([*asked, "--json"]) == 0
    assert {best["probability"] for best in json.loads(capsys.readouterr().out)[0]["classes"]} == {None}
    assert main(asked) == 0
    assert " nan" in capsys.readouterr().out


def test_predict_refuses_a_network_that_does_not_say_what_it_takes(tmp_path, capsys):
    exchange.save(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).initialize(), tmp_path / "net.safetensors")
    assert main(["predict", str(tmp_path / "net.safetensors"), "x.png"]) == 2
    assert "does not say what images its network takes" in capsys.readouterr().err
