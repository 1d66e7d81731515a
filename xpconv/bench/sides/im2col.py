"""A convolution as many write it in NumPy: every window copied into a row, and one product of matrices."""

from __future__ import annotations

import numpy as np

from xpconv.bench.candidate import Candidate, NotOfferedError
from xpconv.bench.case import Case


def version() -> dict[str, str]:
    """Versions of what does the work."""
    return {"numpy": np.__version__}


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """The forward convolution; there is nothing else."""
    if case.layer.op != "conv" or case.direction != "forward":
        raise NotOfferedError("forward convolutions only")
    x, w, b = arrays["x"], arrays["w"], arrays.get("b")
    stride, padding, groups = (case.layer.options.get(name, least) for name, least in _DEFAULTS)
    if groups > 1:
        raise NotOfferedError("no groups")

    def call() -> np.ndarray:
        return convolve(x, w, b, stride, padding)

    return [Candidate("im2col", call, lambda: {"y": call()})]


_DEFAULTS = (("stride", 1), ("padding", 0), ("groups", 1))


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: int, padding: int) -> np.ndarray:
    """(N, *spatial, C) ⋆ (*kernel, C, O) -> (N, *out, O)."""
    kernel, axes = w.shape[:-2], tuple(range(1, x.ndim - 1))
    padded = np.pad(x, [(0, 0), *[(padding, padding)] * len(kernel), (0, 0)]) if padding else x
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=axes)  # (N, *out, C, *kernel)
    windows = windows[(slice(None), *(slice(None, None, stride),) * len(kernel))]
    rows = np.moveaxis(windows, len(kernel) + 1, -1)  # (N, *out, *kernel, C)
    out = rows.shape[: len(kernel) + 1]
    y = rows.reshape(-1, w[..., 0].size) @ w.reshape(-1, w.shape[-1])
    return (y if b is None else y + b).reshape(*out, w.shape[-1])
