"""Everything a file can have wrong, and what is said of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from xpconv import FileError, exchange


def metadata_of(path):
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]


def rewritten(path, change):
    """The file again, with other metadata."""
    from safetensors.numpy import load_file, save_file

    tensors, metadata = load_file(path), metadata_of(path)
    save_file(tensors, path, change(metadata))


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_files(learned, path, size):
    exchange.save(learned, path)
    raw = path.read_bytes()
    path.write_bytes(raw[:size])
    with pytest.raises(FileError, match="the file is truncated, damaged, or no safetensors file") as error:
        exchange.load(path)
    assert str(path) in str(error.value)
    assert f"{len(raw[:size])} bytes" in str(error.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + 200 * b"zip", b"\x80\x04\x95pickle", 64 * b"\xff", b"text\n" * 30])
def test_foreign_files(path, content):
    path.write_bytes(content)
    with pytest.raises(FileError, match="no safetensors file"):
        exchange.load(path)


def test_a_missing_file_is_the_systems_error(path):
    with pytest.raises(FileNotFoundError):
        exchange.load(path)


def test_a_byte_that_was_flipped_anywhere_is_told(learned, path):
    exchange.save(learned, path)
    raw, silent = path.read_bytes(), []
    start = 8 + int.from_bytes(raw[:8], "little")
    places = [*range(0, start, 7), *range(start, len(raw), 101), len(raw) - 1]
    for at in places:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x04]) + raw[at + 1 :])
        try:
            exchange.load(path)
        except FileError:
            continue
        silent.append(at)
    name = raw.index(b"xpconv.checksums")  # a file whose entry has another name has no checksums
    assert all(name <= at < name + len("xpconv.checksums") for at in silent)
    assert len(silent) < 4


def test_the_message_names_the_array_that_is_damaged(learned, path):
    exchange.save(learned, path)
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 0x80
    path.write_bytes(raw)
    with pytest.raises(FileError) as error:
        exchange.load(path)
    rule, evidence, remedy = str(error.value).split("\n")
    assert rule == f"load {path}: the file is damaged: it no longer holds what was written to it."
    assert re.fullmatch(r"  checksums of 1 of 9 arrays differ: stem\.weight \w{8} not \w{8}", evidence)
    assert "drop its 'xpconv.checksums' entry" in remedy


def test_what_has_no_checksums_still_loads(learned, path):
    exchange.save(learned, path)
    rewritten(path, lambda metadata: {"xpconv": metadata["xpconv"]})
    assert exchange.load(path).state_dict().keys() == learned.state_dict().keys()


def test_weights_for_pytorch_have_checksums_too(learned, path):
    exchange.save_torch(learned, path)
    assert list(metadata_of(path)) == ["format", "xpconv.checksums"]
    raw = path.read_bytes()
    exchange.save_torch(learned, path)
    assert path.read_bytes() == raw, "entries are written in one order"
    path.write_bytes(raw[:-1] + b"\x11")
    with pytest.raises(FileError, match="the file is damaged"):
        exchange.load_torch(learned, path)


def test_safetensors_of_others(path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(FileError, match=r"holds arrays but no network that xpconv\.save wrote") as error:
        exchange.load(path)
    assert "of PyTorch's weights, exchange.load_torch(net, path)" in str(error.value)


@pytest.mark.parametrize("version", [2, 0, "x", None])
def test_other_versions_of_the_format(learned, path, version):
    exchange.save(learned, path)
    rewritten(path, with_entry("format", version))
    with pytest.raises(FileError, match="written by another version of xpconv") as error:
        exchange.load(path)
    assert f"version {version} of the format; this xpconv reads version 1" in str(error.value)


def with_entry(key, value):
    return lambda metadata: {"xpconv": json.dumps({**json.loads(metadata["xpconv"]), key: value})}


def with_net(net):
    return with_entry("net", net)


def nested(depth):
    """Lists one in another, which `json` itself may be too shallow to write."""
    return lambda metadata: {
        "xpconv": metadata["xpconv"].replace('"args": [', '"args": [' + depth * "[" + depth * "]", 1)
    }


def shared(depth, before=0):
    """A network of few layers and 2**depth paths: each layer stands twice in the one around it.

    ``before`` counts the layers that the file tells of before these.
    """
    net = {"layer": "ReLU", "args": [], "kwargs": {}}
    for level in reversed(range(depth)):
        net = {"layer": "Sequential", "args": [net, {"again": before + level + 1}], "kwargs": {}}
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"xpconv": "{"}, "is no JSON"),
        (lambda m: {"xpconv": "[]"}, "is malformed"),
        (with_net(None), "is malformed"),
        (with_entry("frozen", None), "is malformed"),
        (with_net({"layer": "os.system", "args": ["ls"], "kwargs": {}}), "no layer is called 'os.system'"),
        (with_net({"layer": "Module", "args": [], "kwargs": {}}), "no layer is called 'Module'"),
        (with_net({"layer": "Linear", "args": [3]}), "is malformed"),
        (with_net({"again": 0}), "is malformed"),
        (with_net({"layer": "Residual", "args": [{"again": 0}], "kwargs": {}}), "is malformed"),
        (with_net({"layer": "Linear", "args": [], "kwargs": {"size": 3}}), "Linear refuses the arguments"),
        (with_net({"layer": "Linear", "args": [3, 2], "kwargs": {}}), "arrays in the file do not fit"),
        (nested(100_000), "nested too deeply"),
        (nested(2_000), "nested too deeply"),
        (with_net({"tuple": [shared(60)]}), "it tells of a tuple"),
        (with_net({"layer": "Sequential", "args": [[shared(60, 1)]], "kwargs": {}}), "unpack the list"),
    ],
)
def test_architectures_that_do_not_fit(learned, path, change, message):
    exchange.save(learned, path)
    rewritten(path, change)
    with pytest.raises(FileError, match=message) as error:
        exchange.load(path)
    assert str(path) in str(error.value)


def test_arrays_of_another_architecture_are_all_named(learned, path):
    exchange.save(learned, path)
    rewritten(path, with_net({"layer": "Linear", "args": [3, 2], "kwargs": {}}))
    with pytest.raises(FileError) as error:
        exchange.load(path)
    for line in ("weight is missing", "bias is missing", "stem.weight is unexpected", "head.bias is unexpected"):
        assert line in str(error.value)


def test_a_dtype_of_others(learned, path):
    exchange.save(learned, path)
    header = {"__metadata__": metadata_of(path), "a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0")
    with pytest.raises(FileError, match="an array has a dtype that is not known here"):
        exchange.load(path)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_parameters_that_are_no_numbers_to_learn(learned, path, dtype):
    from safetensors.numpy import load_file, save_file

    exchange.save(learned, path)
    tensors = load_file(path)
    save_file(
        {**tensors, "head.bias": tensors["head.bias"].astype(dtype)}, path, {"xpconv": metadata_of(path)["xpconv"]}
    )
    with pytest.raises(FileError, match=rf"head\.bias is a parameter, and its values in the file are {dtype}"):
        exchange.load(path)
