"""Convolutional-network layers with gradients, for NumPy and CuPy arrays and any array-API library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xpconv import ops
from xpconv.backend import asarray, to_numpy, use_backend
from xpconv.derivatives import vjp
from xpconv.dispatch import explain
from xpconv.errors import BackendError, EngineError, FileError, GradientError
from xpconv.gradients import check_gradients
from xpconv.settings import autotune, deterministic, precision, set_num_threads, use_engine, workspace_limit

if TYPE_CHECKING:
    from xpconv import exchange, nn, parity, plot, steps, train
    from xpconv.exchange import load, save

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "EngineError",
    "FileError",
    "GradientError",
    "asarray",
    "autotune",
    "check_gradients",
    "deterministic",
    "exchange",
    "explain",
    "load",
    "nn",
    "ops",
    "parity",
    "plot",
    "precision",
    "save",
    "set_num_threads",
    "steps",
    "to_numpy",
    "train",
    "use_backend",
    "use_engine",
    "vjp",
    "workspace_limit",
]

# Found at first use, so that importing the ops alone stays quick.
_PACKAGES = ("exchange", "nn", "parity", "plot", "steps", "train")
_FROM_EXCHANGE = ("load", "save")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"xpconv.{name}")
    if name in _FROM_EXCHANGE:
        return getattr(importlib.import_module("xpconv.exchange"), name)
    from xpconv import hints

    return hints.missing(__name__)(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
