"""The command line, run in this process and as one of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from nets import RUN_FILES, corners
from PIL import Image

from xpconv import backend, cores, exchange, nn, settings, train
from xpconv.cli import console, info, machine, main, model_file
from xpconv.train import progress

STOPPING = "stopping after this step; Ctrl-C again leaves at once\n"
LAST_LINE = re.compile(r"test accuracy: [01]\.\d{4}")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    images, labels = corners()
    path = tmp_path_factory.mktemp("data") / "corners.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A folder that `xpconv train` wrote, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "deep" / "er"
    done = xpconv("train", "--data", data, "--epochs", "4", "--batch-size", "16", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def xpconv(*arguments, **options):
    command = [sys.executable, "-m", "xpconv", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, **options)


# -- train ---------------------------------------------------------------------------------------------------------


def test_train_writes_its_files_and_nothing_else(trained):
    out, _ = trained
    assert {path.name for path in out.iterdir()} == RUN_FILES
    for name in RUN_FILES:
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                assert min(image.size) > 100
    assert [record.epoch for record in train.History.load(out / "history.jsonl")] == [1, 2, 3, 4]


def test_train_says_what_it_runs_and_where_the_files_are(trained):
    out, text = trained
    assert "121 training and 29 test images 8×8×1, 3 classes" in text
    assert re.search(r"3 classes, pixels 0(\.\d+)? to 0\.9\d+$", text, re.MULTILINE)
    assert "lenet: 52,099 parameters" in text
    assert "backend numpy, engine auto, precision ieee" in text
    assert all(str(out / name) in text for name in RUN_FILES)
    assert [line.split()[0] for line in text.splitlines() if re.match(r" +\d", line)] == ["1/4", "2/4", "3/4", "4/4"]


def test_the_last_line_is_the_accuracy_of_the_saved_network(trained, data):
    out, text = trained
    last = text.splitlines()[-1]
    assert LAST_LINE.fullmatch(last)
    held_out = train.load(data)
    measured = train.evaluate(exchange.load(out / "model.safetensors"), (held_out.test_images, held_out.test_labels))
    assert last == f"test accuracy: {measured.accuracy:.4f}"
    assert measured.accuracy > 0.9
    assert measured.accuracy == train.History.load(out / "history.jsonl")[-1].val_accuracy


def test_piped_output_is_plain(trained):
    _, text = trained
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_the_same_seed_writes_the_same_network_over_the_old_one(trained, data, tmp_path, capsys):
    for name in RUN_FILES:
        (tmp_path / name).write_text("old")
    arguments = ["train", "--data", str(data), "--epochs", "4", "--batch-size", "16", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    assert all((tmp_path / name).read_bytes() != b"old" for name in RUN_FILES)
    assert main([*arguments, "--seed", "1"]) == 0
    assert (tmp_path / "model.safetensors").read_bytes() != (trained[0] / "model.safetensors").read_bytes()


def test_settings_given_as_options_hold_for_the_command_only(data, tmp_path, capsys):
    before = settings.current()
    place = ["--backend", "array_api_strict", "--engine", "portable, reference", "--precision", "fast"]
    assert main(["train", "--data", str(data), "--epochs", "1", "--out", str(tmp_path), *place]) == 0
    assert "backend array_api_strict, engine portable,reference, precision fast" in capsys.readouterr().out
    assert settings.current() == before


def test_train_reads_a_folder_of_images_in_a_wanted_size(tmp_path, capsys):
    images, labels = corners(30)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "data" / f"corner{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((8 + i, 9)).save(folder / f"{i}.png")
    arguments = ["train", "--data", str(tmp_path / "data"), "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert main([*arguments, "--image-size", "8"]) == 0
    assert "test images 8×8×1, 3 classes" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_on_a_terminal_a_live_bar_runs_below_the_rows(data, tmp_path):
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "xpconv",
        "train",
        "--data",
        data,
        "--epochs",
        "3",
        "--batch-size",
        "8",
        "--out",
        tmp_path,
    ]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([*map(str, command)], stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    os.close(ours)
    text = shown.decode()
    assert "━" in text
    assert re.search(r" \d+/16  \d+:\d\d left  loss \d\.\d{4}  accuracy \d\.\d{4}", text)
    assert "\x1b[" in text
    plain = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines()]
    assert LAST_LINE.fullmatch(plain[-1])
    assert sum(bool(re.search(r"\d/3( +\d+\.\d+){5}$", line)) for line in plain) == 3


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other side has closed it
        return b""


def test_the_live_bar_shows_the_loss_so_far(monkeypatch, capsys):
    class Tally:
        def result(self):
            return train.Evaluation(0.1234, 0.75)

    monkeypatch.setenv("TERM", "xterm")
    live = progress.Bar("test")
    live.on_start(2, 10)
    live.running = Tally()
    live.on_step(1, 10)
    status = live._bar.tasks[0].fields["status"]
    live.on_end(train.History())
    assert re.fullmatch(r"\d+:\d\d left  loss 0\.1234  accuracy 0\.7500", status)


@pytest.mark.parametrize(
    ("terminal", "term", "live"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_the_bar_is_for_terminals_that_can_show_it(monkeypatch, terminal, term, live):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    assert progress.on_terminal() is live


def test_options_reach_the_training(data, tmp_path, monkeypatch):
    given = {}

    def fit(net, images, **options):
        given.update(options, net=net)
        net(images[0][:1])
        return train.History(diverged=True)

    monkeypatch.setattr(train, "fit", fit)
    arguments = ["--lr", "0.25", "--seed", "7", "--epochs", "3", "--batch-size", "9", "--out", str(tmp_path)]
    main(["train", "--data", str(data), *arguments])
    assert isinstance(given["optimizer"], train.Adam)
    assert given["optimizer"].lr == 0.25
    assert given["schedule"] == train.schedule.Cosine(warm_up=0.1)
    assert (given["seed"], given["epochs"], given["batch_size"]) == (7, 3, 9)
    drawn = nn.models.lenet(num_classes=3, in_channels=1).initialize(seed=7).parameters()["conv1.weight"].value
    assert np.array_equal(given["net"].parameters()["conv1.weight"].value, drawn)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_loses_nothing(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "3", "--out", tmp_path]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    assert len(train.History.load(tmp_path / "history.jsonl")) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_for_the_output_loses_nothing(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "1", "--out", tmp_path]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES


def test_a_place_that_cannot_be_written_is_told_before_training(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit", None)
    (tmp_path / "curves.png").mkdir()
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 2
    assert f"{str(tmp_path / 'curves.png')!r} is a folder" in capsys.readouterr().err

    def full(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "new" / "model.safetensors") in said
    assert "Read-only file system" in said


# -- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_what_was_learned(data, tmp_path):
    command = [sys.executable, "-m", "xpconv", "train", "--data", data, "--epochs", "9999", "--out", tmp_path]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stuck = threading.Timer(60, process.kill)
        stuck.start()
        seen = []
        for line in process.stdout:
            seen.append(line.rstrip())
            if line.lstrip().startswith("2/9999"):
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        stuck.cancel()
    assert process.returncode == 130, errors
    assert errors == STOPPING
    assert LAST_LINE.fullmatch(seen[-1])
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    history = train.History.load(tmp_path / "history.jsonl")
    assert len(history) >= 2
    assert f"stopped in epoch {len(history) + 1} of 9999; what was learned so far is kept" in seen
    exchange.load(tmp_path / "model.safetensors")


class _Pressing(progress.Lines):
    times = 1

    def on_step(self, epoch: int, step: int) -> None:
        for _ in range(self.times):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_the_first_epoch_still_leaves_every_file(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES
    assert (tmp_path / "history.jsonl").read_text() == ""
    assert LAST_LINE.fullmatch(capsys.readouterr().out.splitlines()[-1])


def test_an_interrupted_run_is_not_tested_where_that_takes_long(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    monkeypatch.setattr("xpconv.cli.train._QUICK", 0.0)
    (tmp_path / "mistakes.png").write_text("of an earlier run")
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES - {"mistakes.png"}
    assert "not tested" in capsys.readouterr().out.splitlines()[-1]


def test_a_second_ctrl_c_leaves_at_once(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xpconv.train.Lines", _Pressing)
    monkeypatch.setattr(_Pressing, "times", 2)
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == STOPPING + "interrupted\n"
    assert not list(tmp_path.iterdir())


# -- predict -------------------------------------------------------------------------------------------------------


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
    assert lines[1].endswith("resized from 16×24 to 8×8")
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


# -- info ----------------------------------------------------------------------------------------------------------


def test_info_tells_of_this_machine():
    done = xpconv("info")
    assert done.returncode == 0
    assert re.search(rf"^  numpy +{re.escape(np.__version__)} +BLAS: ", done.stdout, re.MULTILINE)
    assert re.search(r"^  portable +ready, \d+ primitives$", done.stdout, re.MULTILINE)
    assert "cores usable by this process: " in done.stdout
    assert re.search(r"engine +auto +default +XPCONV_ENGINE", done.stdout)
    gone = {**info.gather()["engines"], "numba": {"problem": "cannot be had here"}}
    chain = info.render({**info.gather(), "engines": gone})
    assert re.search(r"^  numpy +\(numba: not here\), portable$", chain, re.MULTILINE)


def test_info_tells_machines_the_same():
    done = xpconv("info", "--json", env={**os.environ, "XPCONV_ENGINE": "reference,portable"})
    facts = json.loads(done.stdout)
    assert facts["backends"]["numpy"]["version"] == np.__version__
    assert set(facts["engines"]) == set(settings.ENGINES)
    assert facts["settings"]["engine"] == {
        "value": ["reference", "portable"],
        "variable": "XPCONV_ENGINE",
        "from": "environment",
    }
    assert facts["cores"]["usable"] >= 1


def test_info_knows_every_backend_setting_and_extra():
    facts = info.gather()
    assert set(facts["backends"]) == set(backend._KNOWN)
    assert set(facts["settings"]) == set(settings._SETTINGS)
    assert facts["extras"]["train"]["missing"] == []


def test_info_names_what_to_install(monkeypatch):
    version = info._version
    monkeypatch.setattr(info, "_version", lambda *names: version(*names) if "rich" not in names else None)
    text = info.render(info.gather())
    assert re.search(r"^  train +pip install 'xpconv\[train\]' for .* \(missing: rich\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "light"),
    [(["--help"], ("xpconv.train", "matplotlib", "rich", "torch", "PIL")), (["info"], ("torch", "matplotlib", "rich"))],
    ids=["help", "info"],
)
def test_nothing_heavy_is_imported_for(arguments, light):
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('heavy:', [name for name in {light!r} if name in sys.modules]))\n"
        f"from xpconv.cli import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


@pytest.mark.parametrize(
    ("files", "group", "usable"),
    [
        ({"a/cpu.max": "150000 100000"}, "0::/a", 1),
        ({"cpu.max": "100000 100000", "a/cpu.max": "max 100000"}, "0::/a", 1),
        ({"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", 64),
        ({"memory/cpu.cfs_quota_us": "1", "memory/cpu.cfs_period_us": "100000"}, "4:memory:/", 64),
        ({"cpu.max": "6400001 100000"}, "0::/", 64),
    ],
    ids=["quota", "of the group around it", "first hierarchy", "no limit", "another controller", "more than there are"],
)
def test_usable_cores_heeds_the_control_group(tmp_path, monkeypatch, files, group, usable):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(group + "\n")
    found, limit = cores.usable_cores(tmp_path, tmp_path / "cgroup")
    assert found == usable
    assert bool(limit) == (usable < 64)


def test_usable_cores_heeds_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores.usable_cores(tmp_path, tmp_path / "none") == (2, "CPU affinity; 64 in the machine")


AMD, INTEL, WIDE = "vendor_id : AuthenticAMD\n", "vendor_id : GenuineIntel\n", "flags : avx2 avx512f avx512vl\n"


@pytest.mark.parametrize(
    ("name", "kernels", "cpu", "chosen", "advised"),
    [
        ("scipy-openblas", "Haswell", AMD + WIDE, "", True),
        ("scipy-openblas", "", AMD + WIDE, "", True),
        ("scipy-openblas", "SkylakeX", AMD + WIDE, "", False),
        ("scipy-openblas", "Haswell", AMD + WIDE, "Haswell", False),
        ("scipy-openblas", "Zen", AMD + "flags : avx2\n", "", False),
        ("scipy-openblas", "Haswell", INTEL + WIDE, "", False),
        ("mkl", "", AMD + WIDE, "", False),
    ],
)
def test_openblas_advice(tmp_path, monkeypatch, name, kernels, cpu, chosen, advised):
    monkeypatch.setenv("OPENBLAS_CORETYPE", chosen)
    (tmp_path / "cpuinfo").write_text(cpu)
    advice = machine.openblas_advice(machine.Blas(name, "0.3", kernels), tmp_path / "cpuinfo")
    assert (advice is not None) == advised
    assert advice is None or ("OPENBLAS_CORETYPE=SkylakeX" in advice and "measure" in advice)


# -- mistakes of the user's, and others ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "nowhere"], "error: --data: 'nowhere' is neither a known data set nor a file or folder"),
        (["train", "--model", "alexnet9"], "no model is called 'alexnet9'"),
        (["train", "--image-size", "8"], "a size is for folders of image files"),
        (["train", "--engine", "warp"], "no engine is called 'warp'"),
        (["train", "--backend", "abacus"], "no backend is called 'abacus'"),
        (["train", "--precision", "vague"], "must be 'ieee' or 'fast', not 'vague'"),
        (["train", "--epochs", "0"], "--epochs: must be at least 1"),
        (["train", "--lr", "nan"], "--lr: must be a positive number"),
        (["train", "--batch-size", "many"], "--batch-size: must be an integer, not 'many'"),
        (["train", "--lr", "abc"], "--lr: must be a positive number, not 'abc'"),
        (
            ["train", "--out", __file__],
            f"error: --out: {__file__!r} cannot be made, or is no folder.\n  {__file__}: File",
        ),
        (["train", "--out", f"{__file__}/x"], f"error: --out: '{__file__}/x' cannot be made"),
        (["train", "extra"], "xpconv train: error: unrecognized arguments: extra"),
        (["parity", "--json", "no/where.json"], "--json: there is no folder for 'no/where.json'"),
        (["predict", "nowhere.safetensors", "x.png"], "nowhere.safetensors: No such file or directory"),
        (["predict", __file__, "x.png"], "no safetensors file"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: COMMAND"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_mistakes_are_one_message_and_status_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not list(tmp_path.iterdir())


def status(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as exit_:  # argparse's own
        return exit_.code


def test_a_warning_is_a_line(monkeypatch, capsys):
    def run(options):
        warnings.simplefilter("always")
        warnings.warn("numba: kernels cannot be kept.\n  set it", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(info, "run", run)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "warning: numba: kernels cannot be kept.\n  set it\n"


def test_memory_that_does_not_suffice_is_one_message(tmp_path, monkeypatch, capsys):
    def load(*_, **__):
        raise MemoryError("Unable to allocate 37.3 GiB")

    monkeypatch.setattr(train, "load", load)
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: train: the memory does not suffice.\n  Unable to allocate 37.3 GiB\n  try a smaller")


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["info"], ["parity"], ["bench"]], ids=str)
@pytest.mark.parametrize("width", [60, 80])
def test_help_keeps_to_the_terminal(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert status([*command, "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < width


def test_a_mistake_in_the_environment_is_told_before_anything_begins(tmp_path):
    done = xpconv("train", cwd=tmp_path, env={**os.environ, "XPCONV_PRECISION": "vague"})
    assert done.returncode == 2
    assert "environment variable XPCONV_PRECISION='vague'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_info_tells_what_is_wrong_with_the_environment_and_goes_on():
    done = xpconv("info", env={**os.environ, "XPCONV_BACKEND": "abacus", "XPCONV_NUM_THREADS": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("XPCONV_BACKEND='abacus': use_backend: no backend is called", "XPCONV_NUM_THREADS='0'"):
        assert said in re.sub(r"\s+", " ", done.stdout.split("\nadvice\n")[1])


def test_an_option_goes_before_its_variable(tmp_path):
    options = ("parity", "--backend", "numpy", "--engine", "portable", "--op", "relu")
    done = xpconv(*options, cwd=tmp_path, env={**os.environ, "XPCONV_BACKEND": "abacus", "XPCONV_ENGINE": "moon"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "numpy/portable" in done.stdout


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


@pytest.mark.parametrize(("command", "module"), [("train", "matplotlib"), ("predict", "PIL")])
def test_missing_packages_are_told_before_any_work(command, module, tmp_path, monkeypatch, capsys):
    find = console.importlib.util.find_spec
    monkeypatch.setattr(console.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    monkeypatch.setattr(train, "load", None)
    monkeypatch.chdir(tmp_path)
    assert main([command, *(["m", "i"] if command == "predict" else [])]) == 2
    assert "pip install 'xpconv[train]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_digits_without_scikit_learn_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 2
    assert "pip install 'xpconv[train]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bug_keeps_its_traceback(data, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(train, "fit", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "--data", str(data), "--out", str(tmp_path)])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "xpconv", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_output_of_few_characters_will_do():
    done = xpconv("info", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith("xpconv ")


def test_help_names_every_model(capsys):
    assert status(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in nn.models.MODELS:
        assert f"{name}," in shown or f"{name} (default" in shown


def test_version(capsys):
    assert status(["--version"]) == 0
    assert re.fullmatch(r"xpconv \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_package_runs_as_a_module():
    assert "xpconv train" in xpconv("--help").stdout
    assert (Path(console.__file__).parents[1] / "__main__.py").exists()
