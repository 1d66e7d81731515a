"""What gives arrays other shapes: in ONNX's order of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.backend import Array, namespace
from xpconv.exchange.onnx.table import Node, Order, operator
from xpconv.exchange.onnx.values import Axes


@operator("Identity", order=Order.ANY)
def identity(node: Node) -> Any:
    """x itself."""
    return lambda x: x


@operator("Reshape", host=(1,))
def reshape(node: Node) -> Any:
    """Another shape, in which 0 stands for the axis as it is and -1 for what is left."""
    allow_zero = bool(node.get("allowzero", 0))

    def run(x: Array, shape: np.ndarray) -> Array:
        wanted = [int(n) for n in shape]
        if not allow_zero:
            wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
        if -1 in wanted:
            known = math.prod(n for n in wanted if n != -1)
            wanted[wanted.index(-1)] = math.prod(x.shape) // known if known else 0
        return namespace(x).reshape(x, tuple(wanted))

    return run


@operator("Flatten")
def flatten(node: Node) -> Any:
    """A matrix: the axes before one, and those from it on."""
    axis = node.get("axis", 1)

    def run(x: Array) -> Array:
        start = axis if axis >= 0 else axis + x.ndim
        return namespace(x).reshape(x, (math.prod(x.shape[:start]), math.prod(x.shape[start:])))

    return run


@operator("Transpose")
def transpose(node: Node) -> Any:
    """The axes in another order; a view where the library has them."""
    perm = node.get("perm")
    return lambda x: namespace(x).permute_dims(x, tuple(perm or range(x.ndim - 1, -1, -1)))


def axes_of(node: Node, axes: np.ndarray | None) -> Sequence[int] | None:
    """Axes that are an input, or in older versions an attribute."""
    return node.get("axes") if axes is None else [int(axis) for axis in axes]


@operator("Squeeze", host=(1,))
def squeeze(node: Node) -> Any:
    """Without axes of size 1: those named, or all."""
    node.get("axes")

    def run(x: Array, axes: np.ndarray | None = None) -> Array:
        given = axes_of(node, axes)
        gone = [i for i, n in enumerate(x.shape) if n == 1] if given is None else [axis % x.ndim for axis in given]
        return namespace(x).squeeze(x, axis=tuple(gone))

    return run


@operator("Unsqueeze", host=(1,))
def unsqueeze(node: Node) -> Any:
    """With axes of size 1 at the places named."""
    node.get("axes")

    def run(x: Array, axes: np.ndarray | None = None) -> Array:
        given = axes_of(node, axes) or ()
        rank = x.ndim + len(given)
        new, sizes = {axis % rank for axis in given}, iter(x.shape)
        return namespace(x).reshape(x, tuple(1 if i in new else next(sizes) for i in range(rank)))

    return run


@operator("Expand", host=(1,))
def expand(node: Node) -> Any:
    """Repeated along axes of size 1, as broadcasting with the shape would."""

    def run(x: Array, shape: np.ndarray) -> Array:
        return namespace(x).broadcast_to(x, np.broadcast_shapes(tuple(x.shape), tuple(shape.tolist())))

    return run


@operator("Tile", host=(1,))
def tile(node: Node) -> Any:
    """Repeated a number of times along each axis."""
    return lambda x, repeats: namespace(x).tile(x, tuple(repeats.tolist()))


@operator("Concat", order=Order.AXES)
def concat(node: Node) -> Any:
    """Joined along an axis."""
    axis = node.get("axis")
    return lambda axes, *arrays: namespace(arrays[0]).concat(arrays, axis=axes.of(axis))


@operator("Split", order=Order.AXES, host=(1,))
def split(node: Node) -> Any:
    """Cut along an axis, into parts of given sizes or as many even ones as there are outputs."""
    axis, sizes, parts = node.get("axis", 0), node.get("split"), node.get("num_outputs", len(node.outputs))

    def run(axes: Axes, x: Array, split: np.ndarray | None = None) -> tuple[Array, ...]:
        place = axes.of(axis)
        even = -(-x.shape[place] // parts)
        given = sizes if split is None else split.tolist()
        ends = np.cumsum([even] * parts if given is None else given).clip(max=x.shape[place]).tolist()
        before = (slice(None),) * place
        return tuple(
            x[(*before, slice(start, end), *(slice(None),) * (x.ndim - place - 1))]
            for start, end in zip([0, *ends], ends, strict=False)
        )

    return run


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Any:
    """Blocks of channels as blocks of cells."""
    block = node.get("blocksize")
    by_columns = node.one_of("mode", "DCR", ("DCR", "CRD")) == "CRD"

    def run(x: Array) -> Array:
        xp, (n, c, h, w) = namespace(x), x.shape
        inner = c // block**2
        if by_columns:
            parts = xp.permute_dims(xp.reshape(x, (n, inner, block, block, h, w)), (0, 1, 4, 2, 5, 3))
        else:
            parts = xp.permute_dims(xp.reshape(x, (n, block, block, inner, h, w)), (0, 3, 4, 1, 5, 2))
        return xp.reshape(parts, (n, inner, h * block, w * block))

    return run


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Any:
    """Blocks of cells as blocks of channels."""
    block = node.get("blocksize")
    by_columns = node.one_of("mode", "DCR", ("DCR", "CRD")) == "CRD"

    def run(x: Array) -> Array:
        xp, (n, c, h, w) = namespace(x), x.shape
        parts = xp.reshape(x, (n, c, h // block, block, w // block, block))
        parts = xp.permute_dims(parts, (0, 1, 3, 5, 2, 4) if by_columns else (0, 3, 5, 1, 2, 4))
        return xp.reshape(parts, (n, c * block**2, h // block, w // block))

    return run
