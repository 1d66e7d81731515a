"""A network in a file together with the images it takes, so that `xpconv predict` knows how to ask it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from xpconv import exchange
from xpconv.errors import FileError, message
from xpconv.nn import Module

_KEY = "images"  # among the file's notes


class Images(NamedTuple):
    """What a network was trained on."""

    shape: tuple[int, int, int]  # (H, W, C)
    class_names: tuple[str, ...]
    full: float | None = 1.0  # full brightness in the arrays it came from; `None`: their numbers are of another kind


def save(net: Module, images: Images, path: Path) -> None:
    """Write the network and the facts about its images into one file, which is replaced whole."""
    exchange.save(net, path, notes={_KEY: images._asdict()})


def find(path: Path) -> Path:
    """The file itself, or the one in a folder that `xpconv train` wrote."""
    if not path.is_dir():
        return path
    inside = path / "model.safetensors"
    if not inside.is_file():
        remedy = "give a model.safetensors, or the folder that `xpconv train` wrote it into."
        raise FileError(message("model", f"{str(path)!r} is a folder without a model.safetensors.", "", remedy))
    return inside


def load(path: Path) -> tuple[Module, Images]:
    """Read what `save` wrote."""
    net = exchange.load(path)
    try:
        facts = exchange.read_notes(path)[_KEY]
        height, width, channels = map(int, facts["shape"])
        full = facts.get("full", 1.0)
        names = tuple(map(str, facts["class_names"]))
        return net, Images((height, width, channels), names, None if full is None else float(full))
    except (ValueError, TypeError, KeyError) as error:
        rule = f"{str(path)!r} does not say what images its network takes."
        raise FileError(message("model", rule, "", "use a model.safetensors that `xpconv train` wrote.")) from error
