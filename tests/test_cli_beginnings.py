"""What somebody meets who runs the command line for the first time: odd data, strict engines, cold caches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpconv
from xpconv import dispatch, exchange, nn, notices, train
from xpconv.cli import chain, main, model_file, pictures, words
from xpconv.cli.console import UsageError
from xpconv.train import progress


def written(path: Path, pixels: np.ndarray) -> list[str]:
    """The arguments that train on these pixels, for a moment."""
    np.savez(path / "data.npz", x=pixels, y=np.arange(len(pixels)) % 3)
    return ["train", "--data", str(path / "data.npz"), "--epochs", "1", "--out", str(path / "out")]


def answers(path: Path, model: Path, array: np.ndarray, capsys: pytest.CaptureFixture[str]) -> str:
    """What predict prints of an array, or of its refusal."""
    np.save(path / "a.npy", array)
    capsys.readouterr()
    main(["predict", str(model), str(path / "a.npy")])
    shown = capsys.readouterr()
    return shown.out or shown.err


def test_one_image_left_over_for_a_batch_norm_is_told_before_training(tmp_path, monkeypatch, capsys):
    """Of 4 x 4 pixels resnet20 leaves one for its last norms; the split leaves 48 of 60 for training."""
    arguments = written(tmp_path, np.random.default_rng(0).random((60, 4, 4), dtype="float32"))
    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", None)
        assert main([*arguments, "--model", "resnet20", "--batch-size", "47"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: --batch-size: the last batch of an epoch is one example, on which")
    assert "  48 images in batches of 47\n  BatchNorm: " in said.err
    assert "with a batch size of 48 " in said.err


# -- the range of pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [16, 255])
def test_bright_numbers_are_scaled_in_training_and_the_same_way_afterwards(full, tmp_path, capsys):
    """The network is the one that pixels of 0..1 make, and each way to give an image gets the same answer."""
    whole = np.random.default_rng(0).integers(0, full + 1, (60, 8, 8))
    whole[0, 0, 0] = full
    networks = []
    for name, pixels in (("ones", whole / full), ("full", whole)):
        (tmp_path / name).mkdir()
        assert main(written(tmp_path / name, pixels.astype("float32"))) == 0
        networks.append(exchange.load(tmp_path / name / "out" / "model.safetensors").state_dict())
    assert f"pixels 0 to {full}, divided by {full}" in capsys.readouterr().out
    for key, value in networks[0].items():
        np.testing.assert_allclose(networks[1][key], value, rtol=1e-4, atol=1e-5)
    model = tmp_path / "full" / "out"
    assert model_file.load(model_file.find(model))[1].full == full
    given = [whole[0].astype("float64"), (whole[0] / full).astype("float32")]
    given += [whole[0].astype("uint8")] if full == 255 else []
    assert len({answers(tmp_path, model, array, capsys) for array in given}) == 1
    assert f"or to {full} as the training images" in answers(tmp_path, model, whole[0] * 300.0, capsys)


def test_numbers_of_another_kind_are_taken_as_they_are_and_no_image_is_taken_for_them(tmp_path, capsys):
    pixels = np.random.default_rng(0).standard_normal((60, 8, 8)).astype("float32")
    assert main(written(tmp_path, pixels)) == 0
    assert "taken as they are, and `xpconv predict` will take arrays of the same kind alone" in capsys.readouterr().out
    _, takes = model_file.load(tmp_path / "out" / "model.safetensors")
    assert takes.full is None
    np.save(tmp_path / "b.npy", 5 * pixels[0])
    (picture,) = pictures.read(tmp_path / "b.npy", takes)
    np.testing.assert_array_equal(picture.pixels[..., 0], 5 * pixels[0])
    said = answers(tmp_path, tmp_path / "out", np.zeros((8, 8), "uint8"), capsys)
    assert "was trained on numbers of another kind" in said


def test_a_file_of_an_earlier_version_takes_pixels_of_0_to_1(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).initialize()
    exchange.save(net, tmp_path / "net", notes={"images": {"shape": [8, 8, 1], "class_names": ["a", "b"]}})
    assert model_file.load(tmp_path / "net")[1].full == 1


# -- engines and models that do not fit ------------------------------------------------------------------------------


def test_a_chain_that_cannot_train_the_network_is_told_at_the_start_with_what_would_do(tmp_path, monkeypatch, capsys):
    pytest.importorskip("numba")
    monkeypatch.setattr(train, "fit", None)
    monkeypatch.delitem(dispatch.engine_primitives("numba"), "dropout")
    assert main(["train", "--engine", "numba", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "numba cannot do all that this network needs: dropout." in said
    assert "--engine numba,portable" in said
    assert not (tmp_path / "out").exists()


def test_every_primitive_that_is_missing_is_named_once(monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.PReLU(), nn.PReLU(), nn.GELU(), nn.Flatten(), nn.Linear(None, 2))
    net.initialize(seed=0)
    asked = []
    served = {"conv_fprop", "conv_dgrad", "conv_wgrad", "bias_grad", "epilogue_grad"}
    monkeypatch.setattr(chain, "offered", lambda name, *a, **o: asked.append(name) or (name in served or None))
    with xpconv.use_engine("numba"), pytest.raises(UsageError, match="needs: prelu, gelu, linear"):
        chain.check_training(net, (8, 8, 1))
    assert "softmax_cross_entropy" in asked
    before = len(asked)
    for engines in (("numba", "portable"), ("reference",), ("auto",)):
        with xpconv.use_engine(*engines):
            chain.check_training(net, (8, 8, 1))
    assert len(asked) == before, "an engine that can do all is in the chain"


def test_a_model_for_larger_images_says_so_in_options(tmp_path, capsys):
    pixels = np.random.default_rng(0).random((15, 4, 4)).astype("float32")
    small = lambda **options: nn.Sequential(nn.Conv2d(1, 2, 20), nn.Flatten(), nn.Linear(None, 3))  # noqa: E731
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(nn.models.MODELS, "wide", small)
        assert main([*written(tmp_path, pixels), "--model", "wide"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --model: wide takes no images of 4 x 4 pixels.")
    assert "--image-size 32" in said
    assert "--model lenet" in said


def test_calls_in_messages_become_options():
    for said, instead in words.INSTEAD.items():
        assert words.as_options(f"before {said} after") == f"before {instead} after"
        assert words.as_options(f"environment variable X: {said}").endswith(said)
    sources = "".join(
        path.read_text() for path in Path(xpconv.__file__).parent.rglob("*.py") if path.name != "words.py"
    )
    for said in words.INSTEAD:
        parts = said.split(": ", 1)  # a subject stands by itself in the source
        assert f'"{parts[0]}"' in sources if len(parts) == 2 else said in sources, said


def test_an_engine_that_is_not_here_is_told_in_options(capsys):
    if not isinstance(dispatch.engine_primitives("cudnn"), str):
        pytest.skip("cudnn is here")
    assert main(["train", "--engine", "cudnn"]) == 2
    said = capsys.readouterr().err
    assert "--engine auto lets every engine try." in said
    assert "use_engine" not in said


# -- what takes its time once ----------------------------------------------------------------------------------------


@pytest.fixture
def _nothing_told(monkeypatch):
    monkeypatch.setattr(notices, "_told", set())


@pytest.mark.usefixtures("_nothing_told")
def test_who_came_last_is_told_and_nobody_twice():
    outer, inner = [], []
    notices.tell("to no one")
    with notices.told_to(outer.append):
        with notices.told_to(inner.append):
            notices.tell("a")
            notices.tell("a")
        notices.tell("b")
        notices.tell("a")
        notices.tell("to no one")
    assert (outer, inner) == (["b", "to no one"], ["a"])


def test_compiling_kernels_is_told_where_nothing_is_kept_yet(tmp_path):
    pytest.importorskip("numba")
    code = (
        "import sys, numpy as np, xpconv\n"
        "from xpconv import notices, ops\n"
        "for _ in range(2):\n"
        "    with notices.told_to(print, print), xpconv.use_engine('numba'):\n"
        "        ops.relu(np.ones(5, np.float32))\n"
        "print('numba' in sys.modules)"
    )
    environment = {**os.environ, "XPCONV_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == (
        "compiling kernels for this CPU, once for each kind of layer: the first run waits for them\n"
        "compiling kernel 1\ncompiling kernel 2\nTrue\n"
    )
    assert second == "False\n", "neither told nor imported where kernels are kept"


@pytest.mark.usefixtures("_nothing_told")
def test_fit_shows_it_above_the_table(capsys):
    class Slow(nn.Module):
        def vjp(self, x, training=True, needs_input=True):
            notices.tell("this takes a while" if training else "making ready")
            return x, lambda dy: dy

        def __call__(self, x):
            notices.tell("making ready")
            return x

    net = nn.Sequential(Slow(), nn.Flatten(), nn.Linear(4, 2)).initialize()
    with xpconv.use_engine("portable"):
        train.fit(net, (np.ones((4, 4), "float32"), [0, 1, 0, 1]), epochs=1, batch_size=2, progress=progress.Lines())
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["making", "this", "epoch", "1/1"]


def test_a_note_before_the_bar_is_there_is_a_line(capsys):
    pytest.importorskip("rich")
    progress.Bar().on_note("compiling")
    assert capsys.readouterr().out == "  compiling\n"


def test_what_is_waited_for_stands_in_the_line_of_the_bar(capsys):
    rich = pytest.importorskip("rich.progress")
    live = progress.Bar()
    live.on_wait("compiling kernel 1")
    assert capsys.readouterr().out == "  compiling kernel 1\r", "to be written over"
    live._bar = rich.Progress()
    live._task = live._bar.add_task("", status="getting ready")
    live.on_wait("compiling kernel 2")
    assert live._bar.tasks[0].fields["status"] == "compiling kernel 2"


@pytest.mark.parametrize("loss", [0.0, 9.5, 999.9999, 999.99999, 1000.0, 1.46e25, 3e38, float("inf"), float("nan")])
def test_rows_keep_to_their_columns(loss, capsys):
    shown = progress.Lines("test")
    shown.on_start(100, 1)
    shown.on_epoch(train.Epoch(100, loss, 0.5, loss, 0.25, 1e-3, 12.3))
    head, row = capsys.readouterr().out.splitlines()
    assert len(head) == len(row)


def test_one_image_of_as_many_channels_as_the_network_takes_is_no_stack(tmp_path):
    """Four channels are no opacity to a network of four."""
    image = np.random.default_rng(0).random((5, 6, 4), dtype=np.float32)
    np.save(tmp_path / "four.npy", image)
    (picture,) = pictures.read(tmp_path / "four.npy", model_file.Images((5, 6, 4), ("a", "b")))
    assert np.array_equal(picture.pixels, image)
