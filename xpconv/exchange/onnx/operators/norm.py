"""Normalisations."""

from __future__ import annotations

from typing import Any

from xpconv import ops
from xpconv.backend import HALVES, Array, cast, namespace
from xpconv.errors import dtype_name
from xpconv.exchange.onnx.table import Node, Order, Refusal, Step, operator


@operator("BatchNormalization", order=Order.LAST)
def batch_normalization(node: Node) -> Any:
    """`ops.batch_norm`, with the statistics given or, in training, those of the batch."""
    eps, momentum = node.get("epsilon", 1e-5), node.get("momentum", 0.9)
    node.one_of("spatial", 1, (1,))
    training = bool(node.get("training_mode", 0))
    outputs = sum(map(bool, node.outputs))
    if (node.version < 7 and not node.get("is_test", 0)) or (outputs > 1 and not training):
        raise Refusal("training as it was before version 14 of the operator set")

    def infer(activation: str | None = None) -> Step:
        def run(x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> Array:
            given = _alike(x, gamma, beta, mean, var)
            return cast(ops.batch_norm(*given, eps=eps, activation=activation), x.dtype)

        return Step(run, activated=infer)

    def train(x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> tuple[Array, ...]:
        y, now, spread = ops.batch_norm(*_alike(x, gamma, beta), eps=eps, return_stats=True)
        moved = [
            cast(cast(old, now.dtype) * momentum + new * (1 - momentum), old.dtype)
            for old, new in ((mean, now), (var, spread))
        ]
        return cast(y, x.dtype), *moved

    return train if training else infer()


def _alike(x: Array, *others: Array) -> tuple[Array, ...]:
    """The arrays in one dtype: that of x, or float32 where x is of half precision and statistics need its range."""
    dtype = namespace(x).float32 if dtype_name(x.dtype) in HALVES else x.dtype
    return tuple(cast(a, dtype) for a in (x, *others))


@operator("InstanceNormalization", order=Order.LAST)
def instance_normalization(node: Node) -> Any:
    """`ops.instance_norm`."""
    eps = node.get("epsilon", 1e-5)
    return lambda x, gamma, beta: ops.instance_norm(x, gamma, beta, eps=eps)


@operator("GroupNormalization", order=Order.LAST)
def group_normalization(node: Node) -> Any:
    """`ops.group_norm`; until version 20 scale and shift are those of a group, not of a channel."""
    eps, groups = node.get("epsilon", 1e-5), node.get("num_groups")
    node.get("stash_type", 1)  # the op computes in float32 or better anyway
    by_group = node.version < 21

    def run(x: Array, gamma: Array, beta: Array) -> Array:
        if by_group:
            gamma, beta = (namespace(x).repeat(v, x.shape[-1] // groups) for v in (gamma, beta))
        return ops.group_norm(x, groups, gamma, beta, eps=eps)

    return run


@operator("LayerNormalization")
def layer_normalization(node: Node) -> Any:
    """`ops.layer_norm` over the last axes, and, where asked for, the mean and 1 / sqrt(var + eps)."""
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)
    node.get("stash_type", 1)
    outputs = sum(map(bool, node.outputs))

    def run(x: Array, gamma: Array, beta: Array | None = None) -> Any:
        over = tuple(range(axis % x.ndim, x.ndim))
        if all(v is None or v.shape == x.shape[over[0] :] for v in (gamma, beta)):
            y = ops.layer_norm(x, gamma, beta, axes=over, eps=eps)
        else:
            y = ops.layer_norm(x, axes=over, eps=eps) * gamma
            y = y if beta is None else y + beta
        return (y, *_moments(x, over, eps))[:outputs] if outputs > 1 else y

    return run


def _moments(x: Array, over: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    xp = namespace(x)
    wide = _alike(x)[0]
    mean = xp.mean(wide, axis=over, keepdims=True)
    var = xp.mean((wide - mean) ** 2, axis=over, keepdims=True)
    return mean, 1 / xp.sqrt(var + eps)


@operator("LRN", order=Order.LAST)
def lrn(node: Node) -> Any:
    """`ops.local_response_norm`; of an even size, ONNX has the odd channel after the middle one."""
    size = node.get("size")
    options = {"alpha": node.get("alpha", 1e-4), "beta": node.get("beta", 0.75), "k": node.get("bias", 1.0)}

    def run(x: Array) -> Array:
        if size % 2:
            return ops.local_response_norm(x, size, **options)
        xp = namespace(x)
        return xp.flip(ops.local_response_norm(xp.flip(x, axis=-1), size, **options), axis=-1)

    return run
