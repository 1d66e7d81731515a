"""Walking a network, with an empty batch that tells the shapes, to write each of its layers as nodes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xpconv.arguments import shape_of_one
from xpconv.atomic import replacing
from xpconv.backend import Array, backend_of
from xpconv.errors import FileError, counted, dtype_name, message
from xpconv.exchange.files import check_made
from xpconv.exchange.onnx import reading
from xpconv.exchange.onnx.writing import elementwise
from xpconv.exchange.onnx.writing.forms import activated
from xpconv.exchange.onnx.writing.graph import NoForm, Tensor, Writer
from xpconv.nn import (
    BatchNorm,
    Dropout,
    Flatten,
    Identity,
    IdentityShortcut,
    Layer,
    Module,
    Parallel,
    Residual,
    Sequential,
)

_DTYPES = ("float16", "float32", "float64")


def save(net: Module, path: str | os.PathLike[str], input_shape: tuple[int, ...]) -> None:
    """Write a network as an ONNX file, for inference.

    The graph is in ONNX's order of axes: its input ``input`` is (N, C, *spatial), and so is its output ``output`` if
    it is an image; the batch axis N is open. Parameters and buffers keep their dotted names. Nothing is transposed but
    where a layer looks across channels of an image: a `LayerNorm`, a `Linear`, and a `Flatten` of more than one cell,
    which goes by H, W, C. The file appears under its name only when it is whole.

    Parameters
    ----------
    net : Module
        Of layers of this package, and of one's own that are a `Layer`, written by the op that they bind.
    path : str or path
        By custom ending in ``.onnx``.
    input_shape : tuple of int
        Of one example, without the batch axis, in this package's order: ``(H, W, C)``.

    Raises
    ------
    ValueError
        If parameters are not made yet, or the input does not fit.
    FileError
        If layers have no form in ONNX, all of which it names, or for a dtype that is not float16, float32 or float64.

    Notes
    -----
    Operator set 21, version 10 of the format. An `AdaptiveAvgPool2d` is written where its windows are of one size.

    Examples
    --------
    >>> import tempfile
    >>> from xpconv import exchange, nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, activation="relu"), nn.GlobalAvgPool(), nn.Flatten()).initialize()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exchange.onnx.save(net, f"{folder}/net.onnx", (32, 32, 3))
    ...     exchange.onnx.load(f"{folder}/net.onnx").inputs[0].shape
    ('N', 3, 32, 32)
    """
    if not isinstance(net, Module):
        raise TypeError(message("onnx.save", f"takes a network, not a {type(net).__name__}."))
    input_shape = shape_of_one("onnx.save", input_shape)
    check_made("onnx.save", net)
    reading.package("onnx.save")
    values = {name: state.value for name, state in net._states().items()}
    dtype = _dtype(values)
    some = next(iter(values.values()), None)
    probe: Array = np.empty((0, *input_shape), dtype)
    probe = probe if some is None else backend_of(some).asarray(probe)
    writer = Writer({id(state): name for name, state in net._states().items()}, dtype)
    walk = _Walk(writer)
    x = Tensor("input", tuple(probe.shape), True)
    try:
        y, _ = walk.write(net, "", x, probe)
    except (TypeError, ValueError) as error:
        error.add_note(f"in onnx.save(input_shape={input_shape}), the shape of one example, (H, W, C)")
        raise
    if walk.without:
        have = "has" if len(walk.without) == 1 else "have"
        rule = f"{counted(len(walk.without), 'layer')} {have} no form in ONNX."
        remedy = "a layer of one's own that applies one op can be an nn.Layer, which is written by its op."
        raise FileError(message("onnx.save", rule, "\n  ".join(walk.without), remedy))
    with replacing(path) as beside:
        beside.write_bytes(writer.model(x, y))


def _dtype(values: dict[str, Any]) -> str:
    dtypes = {dtype_name(value.dtype) for value in values.values()} or {"float32"}
    if len(dtypes) > 1 or not dtypes <= set(_DTYPES):
        rule = f"the network must be of one dtype, {', '.join(_DTYPES)}."
        raise FileError(message("onnx.save", rule, f"given: {', '.join(sorted(dtypes))}", "net.to(dtype='float32')"))
    return dtypes.pop()


class _Walk:
    """Goes through a network as an input does, and notes the layers that cannot be written."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.without = writer, list[str]()

    def write(self, module: Module, path: str, x: Tensor, probe: Array) -> tuple[Tensor, Array]:
        """The module's output, as a tensor and as the empty array that tells its shape."""
        for kind, container in _CONTAINERS.items():
            if _is(module, kind):
                return container(self, module, path, x, probe)
        y = module(probe)
        self.writer.path = path
        try:
            return self._leaf(module, x, probe, tuple(y.shape)), y
        except NoForm as why:
            self.without.append(f"{path or 'the network'} ({type(module).__name__}): {why}")
            return replace(x, shape=tuple(y.shape)), y

    def _leaf(self, module: Module, x: Tensor, probe: Array, shape: tuple[int, ...]) -> Tensor:
        for kind, simple in _SIMPLE.items():
            if _is(module, kind):
                return simple(self.writer, x, module, shape)
        if not isinstance(module, Layer) or type(module).run not in (Layer.run, BatchNorm.run):
            raise NoForm("a layer with a vjp of its own")
        op, args, options = module.bind(probe, False)
        write = elementwise.FORMS.get(op)
        if write is None or type(module).__call__ is not Layer.__call__:
            raise NoForm(f"{op.__name__} has none")
        bound = inspect.signature(op).bind(*args, **options)
        bound.apply_defaults()
        return write(self.writer, x, dict(bound.arguments), shape)


def _is(module: Module, kind: type[Module]) -> bool:
    """Whether a module does what its kind does: a subclass may do something else."""
    return isinstance(module, kind) and type(module).__call__ is kind.__call__ and type(module).vjp is kind.vjp


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _sequential(walk: _Walk, net: Any, path: str, x: Tensor, probe: Array) -> tuple[Tensor, Array]:
    for name, child in net.children().items():
        x, probe = walk.write(child, _inside(path, name), x, probe)
    return x, probe


def _residual(walk: _Walk, net: Any, path: str, x: Tensor, probe: Array) -> tuple[Tensor, Array]:
    main, y = walk.write(net.body, _inside(path, "body"), x, probe)
    side = x
    if net.shortcut is not None:
        side, _ = walk.write(net.shortcut, _inside(path, "shortcut"), x, probe)
    g = walk.writer
    g.path = path
    total = g.add("Add", g.channels_first(main), g.channels_first(side).name)
    return activated(g, total, net.activation), y


def _parallel(walk: _Walk, net: Any, path: str, x: Tensor, probe: Array) -> tuple[Tensor, Array]:
    parts = [walk.write(child, _inside(path, name), x, probe)[0] for name, child in net.children().items()]
    g, y = walk.writer, net(probe)
    g.path = path
    first, *others = (g.channels_first(part) for part in parts)
    return g.add("Concat", first, *(part.name for part in others), shape=tuple(y.shape), axis=1), y


def _flatten(g: Writer, x: Tensor, module: Any, shape: tuple[int, ...]) -> Tensor:
    one_cell = all(n == 1 for n in x.spatial)
    return g.add("Flatten", x if one_cell else g.channels_last(x), shape=shape, axis=1)


def _through(g: Writer, x: Tensor, module: Any, shape: tuple[int, ...]) -> Tensor:
    return x


def _shortcut(g: Writer, x: Tensor, module: Any, shape: tuple[int, ...]) -> Tensor:
    """Every stride-th cell, and zeros for the channels that are not there."""
    rank, extra = len(x.shape), shape[-1] - x.shape[-1]
    x = g.channels_first(x)
    if module.stride > 1:
        spatial = np.arange(2, rank)
        ends = np.full(rank - 2, np.iinfo(np.int64).max)
        bounds = [g.parameter(v) for v in (0 * spatial, ends, spatial, 0 * spatial + module.stride)]
        x = g.add("Slice", x, *bounds, shape=(*shape[:-1], x.shape[-1]))
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + 1] = extra
    return g.add("Pad", x, g.parameter(pads), shape=shape) if extra else x


_CONTAINERS: dict[type[Module], Callable[..., tuple[Tensor, Array]]] = {
    Sequential: _sequential,
    Residual: _residual,
    Parallel: _parallel,
}
_SIMPLE: dict[type[Module], Callable[..., Tensor]] = {
    Flatten: _flatten,
    Identity: _through,
    Dropout: _through,
    IdentityShortcut: _shortcut,
}
