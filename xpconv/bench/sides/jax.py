"""JAX's side: compiled by `jax.jit`, images in NHWC, each call waited for.

Backward is the pullback of a `jax.vjp` that was made before: its residuals go into the compiled function as arguments,
so that no forward pass is timed and none can be folded away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.candidate import Candidate, NotOfferedError, gradients
from xpconv.bench.case import Case
from xpconv.settings import current

_OPS = ("conv", "max_pool", "global_avg_pool", "batch_norm", "linear", "softmax_cross_entropy", "step")


def version() -> dict[str, str]:
    """Versions of what does the work."""
    import jax

    return {"jax": jax.__version__}


def wait(result: Any) -> None:
    """Return when every array of the result is there."""
    import jax

    jax.block_until_ready(result)


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """The op, or a training step."""
    import jax
    import jax.numpy as jnp

    if case.dtype != "float32" or case.direction == "fused" or case.layer.op not in _OPS:
        raise NotOfferedError(f"float32 without fusing, and of ops {', '.join(_OPS)}")
    jax.config.update("jax_default_matmul_precision", "highest" if current().precision == "ieee" else "default")
    if case.layer.op == "step":
        from xpconv.bench.sides import jax_step

        return [Candidate("jit", *jax_step.make(case, arrays), wait)]
    given = {name: jnp.asarray(x) for name, x in arrays.items()}
    dy, labels = given.pop("dy"), given.pop("labels", None)
    op = function(case, labels)
    if case.direction == "forward":
        compiled = jax.jit(op)

        def forward() -> Any:
            return compiled(*given.values())

        return [Candidate("jit", forward, lambda: {"y": np.asarray(forward())}, wait)]
    if case.direction == "both":
        whole = jax.jit(lambda arrays, dy: jax.vjp(op, *arrays)[1](dy))
        return [Candidate("jit", lambda: whole(tuple(given.values()), dy), dict, wait)]
    _, pullback = jax.vjp(op, *given.values())
    backward = jax.jit(lambda pullback, dy: pullback(dy))

    def back() -> Any:
        return backward(pullback, dy)

    return [Candidate("jit", back, lambda: gradients(case, back(), np.asarray), wait)]


def conv(x: Any, w: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """``(N, *spatial, C) ⋆ (*kernel, C / groups, O)``."""
    import jax

    axes = "DHW"[5 - x.ndim :]
    names = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    rank = len(axes)
    return jax.lax.conv_general_dilated(
        x, w, (stride,) * rank, ((padding, padding),) * rank, dimension_numbers=names, feature_group_count=groups
    )


def max_pool(x: Any, kernel_size: int, stride: int | None = None, padding: int = 0) -> Any:
    """``(N, H, W, C)``."""
    import jax

    stride = stride or kernel_size
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(
        x, -np.inf, jax.lax.max, (1, kernel_size, kernel_size, 1), (1, stride, stride, 1), pads
    )


def batch_norm(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """y, and the batch's mean and variance."""
    import jax
    import jax.numpy as jnp

    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.mean((x - mean) ** 2, axes)
    return (x - mean) * (gamma * jax.lax.rsqrt(var + 1e-5)) + beta, mean, var


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the batch."""
    import jax
    import jax.numpy as jnp

    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def function(case: Case, labels: Any) -> Callable[..., Any]:
    """The op as a JAX user writes it."""
    op, o = case.layer.op, case.layer.options
    if op == "conv":
        return lambda x, w, b=None: conv(x, w, **o) if b is None else conv(x, w, **o) + b
    if op == "max_pool":
        return lambda x: max_pool(x, **o)
    if op == "global_avg_pool":
        return lambda x: x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True)
    if op == "batch_norm":
        return lambda x, gamma, beta: batch_norm(x, gamma, beta)[0]
    if op == "linear":
        return lambda x, w, b: x @ w + b
    return lambda logits: cross_entropy(logits, labels)
