"""From a file to a sound ModelProto: parsed, completed from its data files, and checked; nothing in it is executed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.errors import FileError, message

_LARGEST = 2**31 - 1  # bytes that protobuf serialises, which ONNX's checker needs


def package(subject: str) -> Any:
    """The onnx package; where it is missing, an `ImportError` that says how to get it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        remedy = "install it with: pip install 'xpconv[onnx]'"
        raise ImportError(message(subject, f"needs a package that is not here ({error}).", "", remedy)) from error


def read(source: Any) -> tuple[Any, str]:
    """The ModelProto of a path, or one that is given, completed but not checked, and how messages name it."""
    onnx = package("onnx.load")
    if isinstance(source, onnx.ModelProto):
        model, subject, folder = source, "onnx model", None
    else:
        subject, folder = f"load {os.fspath(source)}", Path(source).parent
        if os.path.isdir(source):
            raise FileError(message(subject, "it is a folder.", "", "pass the path of an .onnx file."))
        model = _parsed(Path(source).read_bytes(), subject)
    if any(isinstance(name, bytes) for name in _names(model)):  # as protobuf gives what is no UTF-8
        raise FileError(message(subject, "the file is damaged: a name in it is no text."))
    outside = [tensor for tensor in _tensors(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside and folder is None:
        rule = f"{len(outside)} of its tensors lie in other files."
        raise FileError(message(subject, rule, "", "pass the path of the model instead."))
    for tensor in outside:
        _complete(tensor, Path(source).parent, subject)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return model, subject


def check(model: Any, subject: str) -> None:
    """Hold a model to ONNX's own rules; one too large for its checker is only held to those of the reader."""
    import onnx

    if model.ByteSize() > _LARGEST:
        return
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # or its complaint quotes what is no text
        raise FileError(message(subject, "ONNX's checker finds the model unsound.", str(error).strip())) from error


def _parsed(data: bytes, subject: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        rule = "the file is truncated, damaged, or no ONNX model."
        raise FileError(message(subject, rule, f"{len(data)} bytes: {error}")) from error
    if not model.HasField("graph"):
        raise FileError(message(subject, "the file holds no graph.", f"{len(data)} bytes"))
    return model


def _names(model: Any) -> Iterator[str | bytes]:
    """What a graph calls its parts, its operators and its data files."""
    graph = model.graph
    for entry in model.opset_import:
        yield entry.domain
    for tensor in _tensors(graph):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (axis.dim_param for axis in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def array(tensor: Any, subject: str) -> np.ndarray:
    """The values of a tensor, if it has as many as its shape asks for."""
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        rule = f"the values of tensor {tensor.name!r} do not fit its shape {tuple(tensor.dims)} and dtype."
        raise FileError(message(subject, rule, str(error))) from error


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor in a graph, those in attributes and subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _complete(tensor: Any, folder: Path, subject: str) -> None:
    """Read a tensor's bytes from its data file, which must lie in the model's folder or below."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    name = facts.get("location", "")
    path = (folder / name).resolve()
    given = f"tensor {tensor.name!r} names {name!r}"
    if not name or os.path.isabs(name) or not path.is_relative_to(folder.resolve()):
        raise FileError(message(subject, "a data file must lie in the model's own folder.", given))
    if not path.is_file():
        raise FileError(message(subject, "a data file is missing.", f"{given}: {path}"))
    try:
        offset, length = int(facts.get("offset", 0)), int(facts.get("length", -1))
    except ValueError:
        raise FileError(message(subject, "the place of a tensor in its data file is malformed.", given)) from None
    with open(path, "rb") as file:
        file.seek(max(offset, 0))
        data = file.read(length)
    if offset < 0 or len(data) < length:
        evidence = f"{given}: bytes {offset} to {offset + length} of {path.stat().st_size}"
        raise FileError(message(subject, "a data file is truncated.", evidence))
    tensor.raw_data = data
    del tensor.external_data[:]
    tensor.ClearField("data_location")
