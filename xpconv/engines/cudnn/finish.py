"""What the library does not fuse: bias, residual and activation after the sums, elementwise, in float32 and float64."""

from __future__ import annotations

from typing import Any

import cupy

from xpconv.backend import Array


def finish(sums: Array, bias: Array | None, residual: Array | None, activation: str | None, keep: bool) -> Any:
    """activation(sums + bias + residual), written into the sums unless they are kept: then ``(y, sums)``."""
    for extra in (bias, residual):
        if extra is not None:
            sums += extra
    if activation is None:
        return (sums, sums) if keep else sums
    y = ACTIVATIONS[activation](sums, cupy.empty_like(sums) if keep else sums)
    return (y, sums) if keep else y


def _relu(z: Array, out: Array) -> Array:
    return cupy.maximum(z, 0, out=out)


def _relu6(z: Array, out: Array) -> Array:
    return cupy.minimum(cupy.maximum(z, 0, out=out), 6, out=out)


def _sigmoid(z: Array, out: Array) -> Array:
    return cupy.divide(cupy.tanh(z * 0.5) + 1, 2, out=out)  # neither end overflows


def _silu(z: Array, out: Array) -> Array:
    return cupy.multiply(z, _sigmoid(z, cupy.empty_like(z)), out=out)


def _tanh(z: Array, out: Array) -> Array:
    return cupy.tanh(z, out=out)


def _softplus(z: Array, out: Array) -> Array:
    return cupy.logaddexp(z, 0, out=out)


def _hard_swish(z: Array, out: Array) -> Array:
    return cupy.multiply(z, cupy.minimum(cupy.maximum(z + 3, 0), 6) / 6, out=out)


ACTIVATIONS = {
    "relu": _relu,
    "relu6": _relu6,
    "silu": _silu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
    "hard_swish": _hard_swish,
}
