"""Pools over windows, pools over everything, and MaxUnpool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xpconv import ops
from xpconv.backend import Array, backend_of, namespace
from xpconv.exchange.onnx.operators.window import pairs, window_options
from xpconv.exchange.onnx.table import Node, Order, Step, operator


@operator("MaxPool", order=Order.LAST)
def max_pool(node: Node) -> Any:
    """`ops.max_pool`, its indices counted over the whole tensor."""
    kernel, options = tuple(node.get("kernel_shape")), _pool_options(node)
    by_columns = node.one_of("storage_order", 0, (0, 1)) == 1
    if len(node.outputs) == 1:
        return lambda x: ops.max_pool(x, kernel, **options)

    def run(x: Array) -> tuple[Array, Array]:
        y, cells = ops.max_pool(x, kernel, return_indices=True, **options)
        return y, _over_tensor(cells, tuple(x.shape), by_columns)

    return run


def _pool_options(node: Node) -> dict[str, Any]:
    return {**window_options(node), "ceil_mode": bool(node.get("ceil_mode", 0))}


def _over_tensor(cells: Array, shape: tuple[int, ...], by_columns: bool) -> Array:
    """Indices over one channel plane, (N, *out, C), as indices over the tensor (N, C, *spatial) that was pooled."""
    (batch, *spatial, channels), place = shape, backend_of(cells)
    if by_columns:
        cells = _counted_by_columns(cells, spatial)
    planes = place.xp.arange(batch * channels, dtype=cells.dtype, device=cells.device)
    planes = place.xp.reshape(planes, (batch, *(1 for _ in spatial), channels))
    return cells + planes * math.prod(spatial)


def _counted_by_columns(cells: Array, spatial: Sequence[int]) -> Array:
    """Row-major indices over a plane as column-major ones: the first axis moves fastest."""
    answer, rest, weight = 0 * cells, cells, math.prod(spatial)
    for n in reversed(spatial):
        weight //= n
        answer, rest = answer + rest % n * weight, rest // n
    return answer


@operator("AveragePool", order=Order.LAST)
def average_pool(node: Node) -> Any:
    """`ops.avg_pool`, by default without counting padding."""
    kernel, options = tuple(node.get("kernel_shape")), _pool_options(node)
    counted = bool(node.get("count_include_pad", 0))
    return lambda x: ops.avg_pool(x, kernel, count_include_pad=counted, **options)


@operator("LpPool", order=Order.LAST)
def lp_pool(node: Node) -> Any:
    """`ops.lp_pool`."""
    kernel, options = tuple(node.get("kernel_shape")), _pool_options(node)
    p = node.get("p", 2)
    return lambda x: ops.lp_pool(x, kernel, p=p, **options)


@operator("GlobalAveragePool", order=Order.LAST)
def global_average_pool(node: Node) -> Any:
    """`ops.global_avg_pool`."""
    return ops.global_avg_pool


@operator("GlobalMaxPool", order=Order.LAST)
def global_max_pool(node: Node) -> Any:
    """`ops.global_max_pool`."""
    return ops.global_max_pool


@operator("GlobalLpPool", order=Order.LAST)
def global_lp_pool(node: Node) -> Any:
    """`ops.lp_pool` over everything."""
    p = node.get("p", 2)
    return lambda x: ops.lp_pool(x, tuple(x.shape[1:-1]), p=p)


@operator("MaxUnpool", order=Order.LAST, host=(2,))
def max_unpool(node: Node) -> Step:
    """`ops.max_unpool` of indices over the whole tensor that the pool's attributes lead back to."""
    kernel = tuple(node.get("kernel_shape"))
    strides = tuple(node.get("strides", (1,) * len(kernel)))
    pads = pairs(node.get("pads", (0,) * 2 * len(kernel)))

    def run(x: Array, indices: Array, output_shape: Any = None) -> Array:
        sizes = zip(x.shape[1:-1], kernel, strides, pads, strict=True)
        inferred = tuple((n - 1) * s + k - sum(pad) for n, k, s, pad in sizes)
        y = ops.max_unpool(x, indices % math.prod(inferred), inferred)
        return y if output_shape is None else _within(y, tuple(map(int, output_shape[2:])))

    return Step(run, images=(0, 1))


def _within(y: Array, sizes: tuple[int, ...]) -> Array:
    """y at the start of a larger output of zeros; ONNX's indices count over y either way."""
    if sizes == tuple(y.shape[1:-1]):
        return y
    grown = namespace(y).zeros((y.shape[0], *sizes, y.shape[-1]), dtype=y.dtype, device=y.device)
    grown[tuple(slice(n) for n in y.shape)] = y
    return grown
