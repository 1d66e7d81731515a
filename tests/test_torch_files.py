"""Weights from PyTorch in files: its own and safetensors, of this package or of others, damaged or not theirs."""

from __future__ import annotations

import builtins
import functools
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from torch_weights import net, weights

import xpconv
from xpconv import FileError, exchange, nn, train


def test_a_safetensors_file_of_bfloat16_is_read_as_float32(tmp_path):
    header = {
        "fc.weight": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]},
        "fc.bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    values = np.array([1.5, -2.0], "<f4").view("<u2")[1::2].tobytes() + np.array([0.25], "<f4").tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + values)
    head = nn.Sequential(fc=nn.Linear(2, 1))
    assert exchange.load_torch(head, tmp_path / "w.safetensors") == ([], [])
    assert head.fc.weight.value.dtype == "float32"
    assert [*head.fc.weight.value.ravel(), *head.fc.bias.value] == [1.5, -2.0, 0.25]


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_files_of_torch(ending, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"weights{ending}"
    given = weights()
    torch.save({name: torch.tensor(x) for name, x in given.items()}, path)
    ours = net()
    assert exchange.load_torch(ours, path) == ([], [])
    np.testing.assert_array_equal(ours.fc.bias.value, given["fc.bias"])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_byte_of_a_torch_file_that_was_flipped_is_told(flipped, tmp_path):
    torch = pytest.importorskip("torch")
    path, ours = tmp_path / "w.pt", nn.Sequential(fc=nn.Linear(64, 64)).initialize()
    torch.save({name: torch.ones(n) for name, n in {"fc.weight": (64, 64), "fc.bias": 64}.items()}, path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x40 * flipped
    path.write_bytes(raw)
    if not flipped:
        assert exchange.load_torch(ours, path) == ([], [])
        return
    with pytest.raises(
        FileError, match=r"the file is damaged: it no longer holds .*\n  Bad CRC-32 for file 'w/data/0'"
    ):
        exchange.load_torch(ours, path)


def test_a_torch_file_that_was_written_without_checksums_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    ours = nn.Sequential(fc=nn.Linear(3, 2))
    assert exchange.load_torch(ours, tmp_path / "w.pt") == ([], [])


def test_files_in_the_layout_of_this_package_are_not_read_as_pytorchs(tmp_path):
    """A square layer would take the weights of either, turned."""
    ours, path = nn.Sequential(fc=nn.Linear(3, 3)).initialize(), tmp_path / "w.safetensors"
    xpconv.save(ours, path)
    with pytest.raises(FileError, match=r"this is xpconv's own file, .*\n  net = xpconv\.load\('.*w\.safetensors'\)"):
        exchange.load_torch(ours, path)
    kept = train.Checkpoint(path)
    train.fit(ours, (np.ones((2, 3), "f4"), [0, 1]), epochs=1, batch_size=2, checkpoint=kept, progress=False)
    for read in (functools.partial(exchange.load_torch, ours), xpconv.load):
        with pytest.raises(FileError, match=r"a training checkpoint.*\n.* the arrays whose names begin with 'net\.'"):
            read(path)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file was run')",))


def test_a_file_that_would_run_something_is_refused_unrun(tmp_path):
    torch = pytest.importorskip("torch")
    new, old = tmp_path / "new.pt", tmp_path / "old.pth"
    torch.save({"fc.weight": Bomb()}, new)
    old.write_bytes(pickle.dumps({"fc.weight": Bomb()}))
    for path in (new, old):
        with pytest.raises(FileError, match="damaged, or holds more than tensors") as error:
            exchange.load_torch(net(), path)
        assert str(path) in str(error.value)


def test_files_of_something_else(tmp_path):
    torch = pytest.importorskip("torch")
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "tensor.pt"
    torch.save({"epoch": 3, "state_dict": {"fc.weight": torch.ones(2)}}, checkpoint)
    torch.save(torch.ones(3), model)
    with pytest.raises(FileError, match="holds no dict of tensors") as error:
        exchange.load_torch(net(), checkpoint)
    assert "epoch, state_dict" in str(error.value)
    with pytest.raises(FileError, match="a Tensor"):
        exchange.load_torch(net(), model)
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(FileError, match="damaged"):
        exchange.load_torch(net(), tmp_path / "cut.pt")


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(FileError, match=r"weights are read from \.safetensors files"):
        exchange.load_torch(net(), tmp_path / "weights.onnx")
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(FileNotFoundError):
            exchange.load_torch(net(), tmp_path / name)


def test_without_torch_its_own_files_cannot_be_read(tmp_path, monkeypatch):
    found = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return found(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", absent)
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ImportError, match="needs PyTorch") as error:
        exchange.load_torch(net(), tmp_path / "w.pt")
    assert "pip install torch" in str(error.value)
    assert ".safetensors" in str(error.value)


def test_a_torch_that_a_file_could_make_run_code_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(__version__="2.5.1+cpu"))
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ImportError, match=r"before version 2\.6 PyTorch could be made to run code") as error:
        exchange.load_torch(net(), tmp_path / "w.pt")
    assert "2.5.1+cpu" in str(error.value)


def test_what_is_not_made_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"save_torch: .* not made yet: fc\.weight"):
        exchange.save_torch(net().initialize(), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_safetensors_format_is_read_under_pytorchs_endings_and_not_written(tmp_path):
    ours = nn.Sequential(fc=nn.Linear(3, 2)).initialize()
    with pytest.raises(ValueError, match=r"(?s)save_torch: writes \.safetensors files.*w\.pt.*to_torch_state"):
        exchange.save_torch(ours, tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())
    exchange.save_torch(ours, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "w.pt")
    again = nn.Sequential(fc=nn.Linear(3, 2)).initialize(seed=1)
    assert exchange.load_torch(again, tmp_path / "w.pt") == ([], [])
    np.testing.assert_array_equal(again.fc.weight.value, ours.fc.weight.value)
