"""ONNX files that are broken, or point outside their folder."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper, parser

import xpconv
from xpconv import exchange

TEXT = '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Add (x, w) }'


def small():
    model = parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2], np.float32), "w"))
    return model


def outside(folder, location, **facts):
    """A model whose weights lie in another file."""
    model = small()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    folder.mkdir(exist_ok=True)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def refused(path, said):
    with pytest.raises(xpconv.FileError, match=said) as raised:
        exchange.onnx.load(path)
    assert str(raised.value).startswith("load ") or not isinstance(path, str)
    return str(raised.value)


def test_a_path_and_the_data_beside_it(tmp_path):
    x = np.zeros(2, np.float32)
    (tmp_path / "a.onnx").write_bytes(small().SerializeToString())
    assert exchange.onnx.load(tmp_path / "a.onnx")(x)[0].tolist() == [1, 2]
    path = outside(tmp_path / "b", "weights/w.bin", offset=4, length=8)
    (tmp_path / "b" / "weights").mkdir()
    (tmp_path / "b" / "weights" / "w.bin").write_bytes(b"head" + np.array([3, 4], np.float32).tobytes())
    assert exchange.onnx.load(str(path))(x)[0].tolist() == [3, 4]


def test_a_truncated_file(tmp_path):
    raw = small().SerializeToString()
    for size in (0, 10, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.onnx").write_bytes(raw[:size])
        said = refused(tmp_path / "cut.onnx", "truncated|no graph|unsound")
        assert said.startswith(f"load {tmp_path / 'cut.onnx'}: ")


def test_damaged_bytes_are_told_as_such(tmp_path):
    """Whatever bit flips: the file is refused in words, or holds another sound model."""
    model = parser.parse_model(
        TEXT.replace("y = Add (x, w)", "c = Constant <value = float[2] {1, 2}> () y = Sum (x, w, c)")
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2], np.float32), "w"))
    raw, said = model.SerializeToString(), set()
    for i in range(len(raw)):
        for bit in (0x01, 0x02, 0x40, 0x80):
            (tmp_path / "net.onnx").write_bytes(raw[:i] + bytes([raw[i] ^ bit]) + raw[i + 1 :])
            try:
                exchange.onnx.load(tmp_path / "net.onnx")
            except (xpconv.FileError, exchange.onnx.UnsupportedError) as error:
                said.add(str(error).partition(".onnx: ")[2].split("\n")[0])
    text = "\n".join(said)
    for words in ("a name in it is no text", "do not fit its shape", "the model unsound", "does not have"):
        assert words in text


def test_what_is_no_model(tmp_path):
    (tmp_path / "text.onnx").write_text("no model at all")
    refused(tmp_path / "text.onnx", "truncated, damaged, or no ONNX model")
    refused(tmp_path, "it is a folder")
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        exchange.onnx.load(tmp_path / "none.onnx")


def test_an_unsound_graph(tmp_path):
    model = small()
    model.graph.node[0].input[1] = "nowhere"
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    assert "nowhere" in refused(tmp_path / "odd.onnx", "unsound")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "weights/../../secret.bin", "link.bin", ""])
def test_data_files_are_confined_to_the_folder(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    path = outside(tmp_path / "model", location)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(path, "a data file must lie in the model's own folder")


def test_data_files_that_are_not_whole(tmp_path):
    path = outside(tmp_path, "w.bin", length=8)
    refused(path, "a data file is missing")
    (tmp_path / "w.bin").write_bytes(bytes(5))
    refused(path, "a data file is truncated")
    refused(outside(tmp_path, "w.bin", length="many"), "malformed")
    refused(outside(tmp_path, "w.bin", offset=-4, length=4), "truncated")
    refused(outside(tmp_path, "w.bin"), "unsound|bytes")


def test_a_model_in_memory_has_no_folder(tmp_path):
    model = onnx.load(outside(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(xpconv.FileError, match="1 of its tensors lie in other files"):
        exchange.onnx.load(model)
