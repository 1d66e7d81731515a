"""Compiled kernels on disk: one file of object code each, in a folder of their own for each CPU and version.

Object code is run, so what somebody else owns or may write to is not used. A file carries the digest of its place and
of what it holds; one that was cut short, changed or moved is compiled anew. Where nothing can be kept, one warning
says so.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from pathlib import Path

from xpconv.atomic import CACHE_VARIABLE as VARIABLE
from xpconv.atomic import cache_folder as folder
from xpconv.atomic import replacing
from xpconv.errors import message

_DIGEST = hashlib.sha256().digest_size

_failed = ""  # why something could not be kept, once that was told


def read(version: str, name: str) -> bytes | None:
    """The object code kept under that name, or `None`."""
    try:
        path = folder() / version / name
        if not path.exists():
            return None
        _check_private(path.parent, path.parent.stat())
        with open(path, "rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            content = file.read()
    except (OSError, RuntimeError) as error:
        _warn(error)
        return None
    code = content[_DIGEST:]
    return code if _digest(version, name, code) == content[:_DIGEST] else None


def write(version: str, name: str, code: bytes) -> None:
    """Keep object code under that name, where the folder lets us."""
    try:
        path = folder() / version / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path.parent, path.parent.stat())
        path.unlink(missing_ok=True)  # or its mode would be kept
        with replacing(path) as beside:
            beside.write_bytes(_digest(version, name, code) + code)
            beside.chmod(0o600)
    except (OSError, RuntimeError) as error:
        _warn(error)


def where() -> str:
    """The folder; where nothing can be kept in it, as far as is known without writing there, why not."""
    try:
        path = folder()
    except RuntimeError as error:
        return f"nowhere ({error})"
    there = next(each for each in (path, *path.absolute().parents) if os.path.exists(each))
    failed = _failed or ("" if os.access(there, os.W_OK) else f"{there} cannot be written")
    return f"nowhere ({failed})" if failed else str(path)


def _digest(version: str, name: str, code: bytes) -> bytes:
    return hashlib.sha256(f"{version}/{name}\n".encode() + code).digest()


def _check_private(path: Path, status: os.stat_result) -> None:
    """Refuse what another user owns or may write to (where the system has such owners)."""
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError(f"{path} belongs to, or may be written by, another user")


def _warn(error: Exception) -> None:
    """Tell of the first error alone; `RuntimeError` is what a user without a home folder gets."""
    global _failed
    if not _failed:
        _failed = str(error)
        rule = "compiled kernels cannot be kept on disk: each process compiles them anew, which takes seconds."
        remedy = f"set {VARIABLE} to a folder of your own."
        warnings.warn(message("numba", rule, str(error), remedy), RuntimeWarning, stacklevel=2)
