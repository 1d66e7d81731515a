"""Writing files whole: a file appears under its name only when it is finished, and an older one stays until then.

Also where files go that only save time, and may be deleted at any moment.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xpconv.errors import message

CACHE_VARIABLE = "XPCONV_CACHE_DIR"
_DIGITS = 8  # that keep the names of two writers apart


def cache_folder() -> Path:
    """Where engines keep what they would else make anew: ``XPCONV_CACHE_DIR``, or the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "xpconv" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "xpconv"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpconv"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the file's place if the block ends well, and is removed if not.

    An older file's mode is kept, and errors of the system name the path that was asked for.
    """
    if not os.fspath(path):
        raise ValueError(message("xpconv", "a file needs a name, and the path is empty."))
    final = Path(os.path.realpath(path))  # of a link, the file that it points to is replaced
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder for it", os.fspath(path))
    beside = final.with_name(f".{final.stem}.{secrets.token_hex(_DIGITS // 2)}{final.suffix}")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        if final.exists():
            shutil.copymode(final, beside)
        os.replace(beside, final)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and (str(error.filename) == str(beside) or error.errno == errno.ENOSPC):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None  # a full disk names no file
        raise


def sweep(path: Path) -> None:
    """Remove what writers of a file have left beside it that were killed; for whoever knows that nobody writes it."""
    for left in path.parent.glob(f".{path.stem}.{'[0-9a-f]' * _DIGITS}{path.suffix}"):
        with suppress(OSError):
            left.unlink()
