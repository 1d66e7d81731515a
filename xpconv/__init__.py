"""Convolutional-network layers with gradients, for NumPy and CuPy arrays and any array-API library."""

from xpconv import ops
from xpconv.backend import asarray, to_numpy, use_backend
from xpconv.dispatch import explain, vjp
from xpconv.errors import BackendError, EngineError, FileError, GradientError
from xpconv.settings import deterministic, precision, use_engine, workspace_limit

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "EngineError",
    "FileError",
    "GradientError",
    "asarray",
    "deterministic",
    "explain",
    "ops",
    "precision",
    "to_numpy",
    "use_backend",
    "use_engine",
    "vjp",
    "workspace_limit",
]
