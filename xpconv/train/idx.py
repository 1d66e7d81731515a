"""IDX files, the format of the MNIST family: a big-endian header of type and shape, then the numbers.

References
----------
.. [1] Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from xpconv.train.common import bad_file

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte.gz, ...
_NAME = re.compile(r"(train|t10k|test)[-_.](images|labels)[-_.]idx\d[-_.]\w+(\.gz)?$", re.IGNORECASE)

Roles = dict[tuple[str, str], Path]  # (train or test, images or labels) -> file


def read(path: Path) -> np.ndarray:
    """The array in an IDX file, plain or gzipped."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise bad_file(f"cannot read {str(path)!r}.", error, "it may be truncated: get the file again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        start, types = data[:4].hex(" ") or "missing", ", ".join(f"{code:02x}" for code in _DTYPES)
        remedy = f"an IDX file begins with 00 00, a type ({types}) and the number of axes."
        raise bad_file(f"{str(path)!r} is not an IDX file.", f"its first bytes are {start}", remedy)
    dtype, axes = np.dtype(_DTYPES[data[2]]), data[3]
    header = 4 + 4 * axes
    sizes = data[4:header]
    shape = tuple(np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").tolist())
    expected = header + math.prod(shape) * dtype.itemsize
    if len(shape) < axes or len(data) != expected:
        fault = "truncated" if len(shape) < axes or len(data) < expected else "longer than its header says"
        whole = len(shape) == axes
        what = f"shape {shape} of {dtype.name} takes {expected}" if whole else f"a header of {axes} axes takes {header}"
        evidence = f"{what} bytes; found {len(data)}"
        raise bad_file(f"{str(path)!r} is {fault}.", evidence, "get the file again.")
    return np.frombuffer(data, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def files(folder: Path) -> Roles:
    """The IDX files of a folder by their role; an unpacked one goes before its .gz."""
    found: Roles = {}
    for path in sorted(folder.iterdir()):  # "name" sorts before "name.gz"
        match = _NAME.search(path.name)
        if match is None or not path.is_file():
            continue
        part = "train" if match[1].lower() == "train" else "test"
        first = found.setdefault((part, match[2].lower()), path)
        if path.name.removesuffix(".gz") != first.name.removesuffix(".gz"):
            rule = f"{str(folder)!r} holds more than one file of {part} {match[2].lower()}."
            remedy = "keep each data set in a folder of its own."
            raise bad_file(rule, f"found {first.name} and {path.name}", remedy)
    return found


def read_folder(folder: Path, roles: Roles) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the training part and, where there are such files, the test part."""
    parts = sorted({"train", *(part for part, _ in roles)})
    lacking = [f"{part} {kind}" for part in parts for kind in ("images", "labels") if (part, kind) not in roles]
    if lacking:
        evidence = f"found {', '.join(path.name for path in roles.values())}"
        remedy = "files are named as train-images-idx3-ubyte and t10k-labels-idx1-ubyte.gz are."
        raise bad_file(f"{str(folder)!r} lacks the IDX file of {lacking[0]}.", evidence, remedy)
    return {part: (read(roles[part, "images"]), read(roles[part, "labels"])) for part in parts}
