"""The sides of a comparison: xpconv itself and other libraries, each run in a process of its own.

A side is a module with ``make(case, arrays) -> [Candidate, ...]``, and ``version() -> {package: version}``. It may
offer several candidates, such as two memory formats, and is given the best of them. Where its arrays are not on the
host it says so by ``device() -> Device``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xpconv.errors import message
from xpconv.settings import Settings, use_engine


@dataclass(frozen=True)
class Side:
    """Where a side's code is, and what must be installed for it."""

    module: str
    package: str
    install: str


SIDES = {
    "xpconv": Side("xpconv.bench.sides.ours", "xpconv", "xpconv"),
    "torch": Side("xpconv.bench.sides.torch", "torch", "'xpconv[bench]'"),
    "torch-graph": Side("xpconv.bench.sides.torch_graph", "torch", "'xpconv[bench]'"),
    "jax": Side("xpconv.bench.sides.jax", "jax", "'xpconv[bench]'"),
    "im2col": Side("xpconv.bench.sides.im2col", "numpy", "numpy"),
    "launch": Side("xpconv.bench.sides.launch", "cupy", "'xpconv[cuda13]'"),
}
_ENGINE = "engine:"  # before a chain of engines: xpconv itself, beside itself


def of(name: str, settings: Settings) -> tuple[str, Settings]:
    """The module of a side, and the settings that hold there: ``engine:cudnn+cupy`` is xpconv on that strict chain."""
    if name.startswith(_ENGINE):
        return SIDES["xpconv"].module, replace(settings, engine=_chain(name))
    return SIDES[name].module, settings


def _chain(name: str) -> tuple[str, ...] | None:
    chain: tuple[str, ...] | None = use_engine.parse(*name.removeprefix(_ENGINE).split("+"))
    return chain


def is_installed(name: str) -> bool:
    """Whether a side's package is here; it is not imported."""
    return name.startswith(_ENGINE) or importlib.util.find_spec(SIDES[name].package) is not None


def check(names: Sequence[str]) -> None:
    """Refuse peers that are not known, or not installed.

    Raises
    ------
    ValueError, ImportError
    """
    known = [name for name in SIDES if name != "xpconv"]
    for name in names:
        if name.startswith(_ENGINE):
            _chain(name)
        elif name not in known:
            rule = f"no peer is called {name!r}."
            remedy = f"known: {', '.join(known)}, {_ENGINE}E+E; 'none' times xpconv alone."
            raise ValueError(message("--against", rule, "", remedy))
        elif not is_installed(name):
            remedy = f"install with: pip install {SIDES[name].install}"
            raise ImportError(message("--against", f"{name!r} is not installed.", "", remedy))
