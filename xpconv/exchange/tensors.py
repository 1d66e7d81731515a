"""Safetensors files as such, whoever wrote them: named arrays, and entries of text in the head.

The format has no checksum of its own, so what is written here carries one for each array and entry, in an entry that
other readers pass over. A file without it is taken as it is.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xpconv.atomic import replacing
from xpconv.errors import FileError, message

Parts = tuple[bytes, bytes, memoryview]  # the length of the head, the head, and the arrays behind it

_SUMS = "xpconv.checksums"
_READERS = {
    **dict.fromkeys((".pt", ".pth"), "PyTorch's files of weights are for exchange.load_torch(net, path)."),
    **dict.fromkeys((".h5", ".keras"), "Keras' files of weights are for exchange.load_keras(net, path)."),
    ".onnx": "graphs are for exchange.onnx.load(path).",
}  # of files by their endings, what reads them
_LISTED = 3  # names that a message gives of many


def serialized(asker: str, arrays: Mapping[str, np.ndarray], entries: Mapping[str, str]) -> Parts:
    """A safetensors file, to be given to `write`."""
    import safetensors
    from safetensors.numpy import save as serialize

    whole = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}
    try:
        raw = serialize(whole)
    except safetensors.SafetensorError as error:
        rule = "the safetensors format does not have a dtype of this network."
        raise FileError(message(asker, rule, str(error), "cast the network first: net.to(dtype=...).")) from error
    sums = {"arrays": _of_arrays(whole), "entries": _of_entries(entries)}
    return _headed(raw, {**entries, _SUMS: json.dumps(sums)})


def write(path: str | os.PathLike[str], parts: Parts) -> None:
    """Write a file, whole or not at all; an older one of that name stays until it is."""
    with replacing(path) as beside, open(beside, "wb") as file:
        file.writelines(parts)


def arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file; those of bfloat16, which NumPy lacks, as float32."""
    import safetensors

    entries = metadata(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no mapping
        wide = _widened(path) if "BF16" in dtypes.values() else {}
        try:
            found = {name: wide[name] if name in wide else file.get_tensor(name) for name in dtypes}
        except (KeyError, AttributeError, TypeError) as error:  # the package meets a dtype that NumPy lacks
            raise bad(path, "an array has a dtype that is not known here.", str(error)) from error
    if _SUMS in entries:
        _compare(path, "arrays", entries[_SUMS], _of_arrays(found))
    return found


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The entries of text in the head of a safetensors file."""
    import safetensors

    if os.path.isdir(path):
        raise bad(path, "it is a folder.", "", "pass the path of a file that xpconv.save wrote.")
    size = os.stat(path).st_size  # an OSError of Python's own names the path
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            entries = file.metadata() or {}
    except safetensors.SafetensorError as error:
        rule = "the file is truncated, damaged, or no safetensors file."
        raise bad(path, rule, f"{size} bytes: {error}", _READERS.get(Path(path).suffix, "")) from error
    if _SUMS in entries:
        _compare(path, "entries", entries[_SUMS], _of_entries(entries))
    return entries


def bad(path: str | os.PathLike[str], rule: str, evidence: str = "", remedy: str = "") -> FileError:
    """A file that cannot be what was asked for."""
    return FileError(message(subject(path), rule, evidence, remedy))


def damaged(path: str | os.PathLike[str], evidence: str, remedy: str) -> FileError:
    """A file whose checksums do not fit what is in it."""
    return bad(path, "the file is damaged: it no longer holds what was written to it.", evidence, remedy)


def subject(path: str | os.PathLike[str]) -> str:
    """How a message about a file begins."""
    return f"load {os.fspath(path)}"


def _headed(raw: bytes, entries: Mapping[str, str]) -> Parts:
    """The file with these entries, in their order: the package would write several in any. Its arrays stay in place."""
    start = 8 + int.from_bytes(raw[:8], "little")
    head = json.dumps({"__metadata__": entries, **json.loads(raw[8:start])}).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little"), head, memoryview(raw)[start:]


def _widened(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The bfloat16 arrays in a file as the float32 of the same values, of which they are the upper half."""
    import safetensors

    items = dict(safetensors.deserialize(Path(path).read_bytes()))
    halves = {name: item for name, item in items.items() if item["dtype"] == "BF16"}
    uppers = {name: np.frombuffer(item["data"], "<u2").astype(np.uint32) << 16 for name, item in halves.items()}
    return {name: upper.view(np.float32).reshape(halves[name]["shape"]) for name, upper in uppers.items()}


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The checksum of each array, of its dtype and shape too: against damage, not against whoever means harm."""
    return {name: _hex(zlib.crc32(x.data, zlib.crc32(f"{x.dtype} {x.shape}".encode()))) for name, x in arrays.items()}


def _of_entries(entries: Mapping[str, str]) -> dict[str, str]:
    return {name: _hex(zlib.crc32(text.encode())) for name, text in entries.items() if name != _SUMS}


def _hex(number: int) -> str:
    return f"{number:08x}"


def _compare(path: str | os.PathLike[str], part: str, written: str, found: dict[str, str]) -> None:
    """Refuse a file of which a part is not what was written."""
    try:
        sums = dict(json.loads(written)[part])
    except (KeyError, RecursionError, TypeError, ValueError):
        sums = {}  # the damage is in the checksums
    other = [name for name in {**sums, **found} if sums.get(name) != found.get(name)]
    if other:
        told = (f"{name} {found.get(name, 'missing')} not {sums.get(name, 'known')}" for name in other[:_LISTED])
        many = ", ..." if len(other) > _LISTED else ""
        raise damaged(
            path,
            f"checksums of {len(other)} of {len(found)} {part} differ: {', '.join(told)}{many}",
            f"use another copy of it, or make it anew; where it was changed on purpose, drop its {_SUMS!r} entry.",
        )
