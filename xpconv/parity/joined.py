"""Whether layers that inference runs in one pass answer as float64 does: convolution, norm, sum and activation.

They are asked of the target's engine alone, which has to do all of it in its convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xpconv import backend, nn, ops
from xpconv.errors import EngineError
from xpconv.parity.bounds import error_in_bounds
from xpconv.parity.check import Row, short
from xpconv.parity.measure import placed
from xpconv.parity.sample import rounded
from xpconv.parity.targets import Target, dtypes
from xpconv.settings import autotune, use_engine

NAME = "conv with its norm"


class Sample(NamedTuple):
    """A convolution, the norm behind it, and what follows."""

    name: str
    x: tuple[int, ...]
    outputs: int
    kernel: int
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to
    activation: str | None = None
    side: bool = False  # whether the block's input is added
    size: float = 1.0  # of the weights


SAMPLES = (
    Sample("3x3, relu", (2, 6, 5, 16), 24, 3, {"padding": 1}, "relu"),
    Sample("3x3, few channels", (2, 7, 6, 3), 5, 3, {"stride": 2}),
    Sample("1x1, residual", (2, 5, 4, 32), 32, 1, {}, "relu", side=True),
    Sample("depthwise, relu6", (2, 6, 5, 16), 16, 3, {"groups": 16, "padding": 1}, "relu6"),
    Sample("groups, silu", (2, 6, 5, 16), 16, 3, {"groups": 2, "padding": 1}, "silu"),
    Sample("long sums", (1, 5, 5, 300), 8, 3),
    # In half precision the sums themselves would be infinite.
    Sample("sums beyond half precision", (2, 5, 4, 64), 16, 3, size=2.0**12),
)


def check(
    target: Target, samples: tuple[Sample, ...] = SAMPLES, on_next: Callable[[str], None] = lambda name: None
) -> Row:
    """Run samples in every dtype, and tell of each before; an exception is one of the faults."""
    row = Row(target, NAME)
    with np.errstate(all="ignore"):
        for dtype in dtypes(target):
            for sample in samples:
                on_next(f"{dtype}, {sample.name}")
                _check(row, sample, dtype)
    return row


def _check(row: Row, sample: Sample, dtype: str) -> None:
    try:
        units = measure(row.target, sample, dtype)
        row.forward[dtype].meet(units, sample.name)
        row.calls += 1
    except EngineError:
        row.declined += 1
    except Exception as error:
        row.faults.append(f"{sample.name}, {dtype}: {short(error)}")


def measure(target: Target, sample: Sample, dtype: str) -> float:
    """The largest error in units of the bound."""
    drawn = _draw(sample, dtype)
    x = placed(target, drawn["x"], dtype)
    net = _net(sample)
    states = net.parameters() | net.buffers()
    with backend.use_backend(target.backend):
        net.to(dtype=dtype)
        for name, state in states.items():
            state.assign(
                placed(target, drawn[name.rpartition(".")[2] if "norm" in name else "w"], state.dtype or dtype)
            )
    with use_engine(target.engine), autotune(True):  # without which cuDNN leaves norms of half precision apart
        y = net(x)
    true, scale = _truth(sample, drawn)
    return error_in_bounds(backend.to_numpy(y).astype("float64"), true, scale, dtype)


def _net(sample: Sample) -> nn.Module:
    conv = nn.Conv2d(sample.x[-1], sample.outputs, sample.kernel, bias=False, **sample.options)
    body = nn.Sequential(
        conv=conv, norm=nn.BatchNorm(sample.outputs, activation=None if sample.side else sample.activation)
    )
    return nn.Residual(body, activation=sample.activation) if sample.side else body


def _draw(sample: Sample, dtype: str) -> dict[str, np.ndarray]:
    """x and the states, as the dtype holds them; statistics of half precision are kept in float32."""
    rng = np.random.default_rng(len(sample.name))
    channels, groups = sample.x[-1], sample.options.get("groups", 1)
    w_shape = (sample.kernel, sample.kernel, channels // groups, sample.outputs)
    spread = sample.size * math.sqrt(math.prod(w_shape[:-1]))
    drawn = {
        "x": rng.standard_normal(sample.x),
        "w": sample.size * rng.standard_normal(w_shape),
        "weight": 1 + 0.3 * rng.standard_normal(sample.outputs),
        "bias": rng.standard_normal(sample.outputs),
        "running_mean": spread * rng.standard_normal(sample.outputs),
        "running_var": spread**2 * rng.uniform(0.5, 2, sample.outputs),
    }
    wide = "float64" if dtype == "float64" else "float32"
    return {name: rounded(a, wide if name.startswith("running") else dtype) for name, a in drawn.items()}


def _truth(sample: Sample, drawn: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The answer in float64, and the scale of its permitted error."""
    x, w, gamma, beta, mean, var = (a.astype("float64") for a in drawn.values())
    factor = gamma / np.sqrt(var + nn.BatchNorm(1).eps)
    side = x if sample.side else np.zeros(1)
    with use_engine("reference"):
        sums = ops.conv(x, w, **sample.options)
        sizes = ops.conv(np.abs(x), np.abs(w), **sample.options)
        y = (sums - mean) * factor + beta + side
        y = y if sample.activation is None else getattr(ops, sample.activation)(y)
    largest = np.max(sizes, axis=(1, 2), keepdims=True) + np.abs(mean)
    terms = math.prod(w.shape[:-1]) + 3  # the sum's, and what the norm and the block add
    return y, math.sqrt(terms) * (largest * np.abs(factor) + np.abs(beta) + np.max(np.abs(side)))
