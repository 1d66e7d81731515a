"""Saving and loading networks: one safetensors file, with the architecture as JSON in its metadata.

The format is of raw arrays behind a JSON header, so that loading a file runs nothing of it, whoever made it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xpconv.backend import Array, get, to_numpy
from xpconv.errors import FileError, dtype_name, message
from xpconv.exchange import architecture
from xpconv.nn import Module
from xpconv.settings import current

# Grows when an older reader could misread a file.
FORMAT_VERSION = 1
_VERSION_KEY, _ARCHITECTURE_KEY = "xpconv_format", "architecture"

# The names that the format has for dtypes; what is not here it cannot hold.
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _CODES.items()}


def save(net: Module, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file: what it is made of, its parameters, and its buffers.

    The file appears under its name only when it is whole; an older one of that name stays until then. Gradients and
    the state of an optimizer are not in it.

    Parameters
    ----------
    net : Module
        Its layers may be of one's own, if their constructors take plain values and layers.
    path : str or path
        By custom ending in ``.safetensors``.

    Raises
    ------
    ValueError
        If parameters are not made yet.
    FileError
        If a constructor's arguments cannot be written, or a dtype that the format lacks (complex128).

    Examples
    --------
    >>> import tempfile, xpconv
    >>> from xpconv import exchange, nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exchange.save(nn.Sequential(nn.Linear(3, 2)).initialize(), f"{folder}/net.safetensors")
    ...     exchange.load(f"{folder}/net.safetensors")
    Sequential()
      0: Linear(3, 2)
    """
    if not isinstance(net, Module):
        raise TypeError(message("save", f"takes a network, not a {type(net).__name__}."))
    arrays = {name: state.value for name, state in net._states().items()}
    unmade = [name for name, value in arrays.items() if value is None]
    if unmade:
        rule = f"not made yet: {', '.join(unmade)}."
        raise ValueError(message("save", rule, "", "call initialize(seed), or run a first input through the network."))
    frozen = [name for name, parameter in net.parameters().items() if not parameter.trainable]
    data = {"net": architecture.describe(net), "frozen": frozen}
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _ARCHITECTURE_KEY: json.dumps(data)}
    _write_whole(Path(path), _header(arrays, metadata), arrays)


def load(path: str | os.PathLike[str], layers: Mapping[str, type[Module]] | None = None) -> Module:
    """Read a network from a file that `save` wrote, onto the backend in force.

    Parameters
    ----------
    path : str or path
    layers : dict of str to class, optional
        Classes of layers of one's own, by the name they have in the file.

    Returns
    -------
    Module
        With the dtypes of the file; half-precision ones that the library lacks become float32.

    Raises
    ------
    FileError
        If the file is truncated, is no safetensors file or none of `save`, is of a later version, or tells of layers
        that are not known or do not fit its arrays.
    """
    tensors, metadata = _read(Path(path))
    data = _architecture(Path(path), metadata)
    net = architecture.build(data["net"], {} if layers is None else layers, _subject(path))
    place = get(current().backend)
    arrays = {name: place.asarray(x.values, _available(x.dtype, place.xp)) for name, x in tensors.items()}
    try:
        net.load_state_dict(arrays)
    except ValueError as error:
        raise _bad(path, "the arrays in the file do not fit the architecture in it.", str(error)) from error
    for name, parameter in net.parameters().items():
        parameter.trainable = name not in data["frozen"]
    return net


class _Tensor(NamedTuple):
    """An array of a file: its values in a dtype that NumPy has, and the name of its own."""

    values: np.ndarray
    dtype: str


# -- writing -----------------------------------------------------------------------------------------------------------


def _header(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The format's header: where each array lies, as JSON, to a multiple of 8 bytes."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, x in arrays.items():
        dtype = dtype_name(x.dtype)
        if dtype not in _CODES:
            rule = f"{name} is {dtype}, which the safetensors format does not have."
            raise FileError(message("save", rule, "", "cast the network first: net.to(dtype=...)."))
        end = start + math.prod(x.shape) * _stored(dtype).itemsize
        table[name] = {"dtype": _CODES[dtype], "shape": list(x.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _write_whole(path: Path, header: bytes, arrays: Mapping[str, Array]) -> None:
    """Write beside the file and put it in place at the end, so that no half of a file is ever seen."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            _write(file, header, arrays)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, header: bytes, arrays: Mapping[str, Array]) -> None:
    file.write(len(header).to_bytes(8, "little"))
    file.write(header)
    for x in arrays.values():
        values, dtype = to_numpy(x), dtype_name(x.dtype)
        if dtype == "bfloat16":  # the upper half of a float32
            values = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        file.write(values.astype(_stored(dtype), copy=False).tobytes())
    file.flush()
    os.fsync(file.fileno())


def _stored(dtype: str) -> np.dtype[Any]:
    """How the format holds a dtype: little-endian, bfloat16 as its bits."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """The arrays and the metadata of a safetensors file, which the format's own package checks."""
    import safetensors

    raw = path.read_bytes()
    try:
        found = safetensors.deserialize(raw)
    except safetensors.SafetensorError as error:
        rule = "the file is truncated, damaged, or no safetensors file."
        raise _bad(path, rule, f"{len(raw)} bytes: {error}") from error
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: _tensor(path, name, part) for name, part in found}, header.get("__metadata__") or {}


def _tensor(path: Path, name: str, part: Mapping[str, Any]) -> _Tensor:
    dtype = _NAMES.get(part["dtype"])
    if dtype is None:
        raise _bad(path, f"{name} has a dtype that is not known here.", part["dtype"])
    values = np.frombuffer(part["data"], _stored(dtype)).reshape(part["shape"])
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return _Tensor(values.astype(values.dtype.newbyteorder("="), copy=False), dtype)


def _available(dtype: str, xp: Any) -> str:
    """The dtype itself, or float32 for one of half precision that the library does not have."""
    return dtype if hasattr(xp, dtype) or dtype not in ("float16", "bfloat16") else "float32"


def _architecture(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that `save` put in the metadata."""
    version, text = metadata.get(_VERSION_KEY), metadata.get(_ARCHITECTURE_KEY)
    if version is None or text is None:
        remedy = "make the network, and pass the arrays to its load_state_dict."
        raise _bad(
            path, "the file holds arrays but no network that xpconv.save wrote.", f"metadata: {dict(metadata)}", remedy
        )
    if version != str(FORMAT_VERSION):
        evidence = f"version {version} of the format; this xpconv reads version {FORMAT_VERSION}"
        raise _bad(path, "the file was written by another version of xpconv.", evidence, "pip install --upgrade xpconv")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad(path, "the architecture in the metadata is no JSON.", str(error)) from error
    if not isinstance(data, dict) or not isinstance(data.get("frozen"), list) or "net" not in data:
        raise _bad(path, "the architecture in the metadata is malformed.", text[:80])
    return data


def _bad(path: str | os.PathLike[str], rule: str, evidence: str = "", remedy: str = "") -> FileError:
    return FileError(message(_subject(path), rule, evidence, remedy))


def _subject(path: str | os.PathLike[str]) -> str:
    return f"load {os.fspath(path)}"
