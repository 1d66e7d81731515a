"""What a network is made of, read off an empty batch that is run through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.arguments import shape_of_one
from xpconv.backend import Array, backend_of, dtype_named, get
from xpconv.errors import dtype_name
from xpconv.nn.fusion import Stretch
from xpconv.nn.gate import Watch, watcher
from xpconv.nn.module import Module
from xpconv.nn.parameter import Parameter
from xpconv.settings import current, use_engine


@dataclass(frozen=True, slots=True)
class Row:
    """One use of one layer, for one example."""

    name: str
    layer: str
    output_shape: tuple[int, ...]  # without the batch axis
    parameters: int  # 0 where a shared layer is used again
    multiply_adds: int
    activation_bytes: int  # of the output
    joins: str = ""  # the convolution in whose pass it is computed at inference


@dataclass(frozen=True)
class Summary:
    """The table that `Module.summary` gives, to be printed; all numbers are for one example."""

    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Numbers in all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolution and linear layers."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all outputs: about what training keeps."""
        return sum(row.activation_bytes for row in self.rows)

    def __repr__(self) -> str:
        head = ("name", "layer", "joins", "output", "parameters", "multiply-adds", "activations")
        cells = [("", "input", "", _shape(self.input_shape), "", "", "")]
        for r in self.rows:
            numbers = _numbers(r.parameters, r.multiply_adds, r.activation_bytes)
            joins = r.joins.rpartition(".")[2]
            cells.append((r.name, r.layer, joins, _shape(r.output_shape), *numbers))
        total = ("total", "", "", "", *_numbers(self.parameters, self.multiply_adds, self.activation_bytes))
        widths = [max(map(len, column)) for column in zip(head, *cells, total, strict=True)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join(
            [_line(head, widths), rule, *(_line(row, widths) for row in cells), rule, _line(total, widths)]
        )


def summarize(net: Module, input_shape: tuple[int, ...]) -> Summary:
    """Run an empty batch through the network and note what passes; values that are not made yet stay so."""
    input_shape = shape_of_one("summary", input_shape)
    states = net._states().values()
    if any(state.value is None for state in states):
        net = copy.deepcopy(net)
    x = _empty_batch(net, input_shape)
    notes = _Notes(net)
    token = watcher.set(notes)
    try:
        with use_engine("portable"):  # shapes are those of any engine, and this one compiles nothing for them
            net(x)
    except (TypeError, ValueError) as error:
        error.add_note(f"in summary(input_shape={input_shape}), the shape of one example, (H, W, C)")
        raise
    finally:
        watcher.reset(token)
    return Summary(input_shape, tuple(notes.rows))


def _empty_batch(net: Module, shape: tuple[int, ...]) -> Array:
    """No example at all, where the network is."""
    made = next((p.value for p in net.parameters().values() if p.value is not None), None)
    if made is None:
        place = get(current().backend)
        noted = next((p.dtype for p in net.parameters().values() if p.dtype is not None), "float32")
        return place.xp.empty((0, *shape), dtype=dtype_named(place.xp, noted), device=place.device)
    place = backend_of(made)
    return place.xp.empty((0, *shape), dtype=made.dtype, device=place.device)


class _Notes(Watch):
    """Told of every module that an input passes through; keeps a row for those that compute something themselves."""

    def __init__(self, net: Module) -> None:
        self.names = {id(module): name for name, module in net.modules().items()}
        self.rows: list[Row] = []
        self.running: list[Module] = []
        self.counted: set[int] = set()
        self.stretches: dict[int, Stretch] = {}  # by the convolution that they begin with
        self.within: dict[int, tuple[Stretch, Any]] = {}  # by each layer that follows it, with the stretch's input

    def __call__(self, module: Module, x: Any, run: Callable[[], Any]) -> Any:
        again = bool(self.running) and self.running[-1] is module  # its own __call__ or vjp, by way of the other
        self.running.append(module)
        try:
            result = run()
        finally:
            self.running.pop()
        own = [item for _, item in module.members() if isinstance(item, Parameter)]
        if not again and (own or not module.children()):
            self.note(module, own, tuple(x.shape), result[0] if isinstance(result, tuple) else result)
            if (stretch := self.stretches.pop(id(module), None)) is not None:
                self.within |= {id(layer): (stretch, x) for layer in stretch.layers[1:]}
        return result

    def meet(self, stretch: Stretch) -> None:
        self.stretches[id(stretch.conv)] = stretch

    def note(self, module: Module, own: list[Parameter], x_shape: tuple[int, ...], y: Array) -> None:
        new = [p for p in own if id(p) not in self.counted]
        self.counted.update(map(id, new))
        shape = tuple(y.shape)
        self.rows.append(
            Row(
                name=self.names.get(id(module), ""),
                layer=type(module).__name__,
                output_shape=shape[1:],
                parameters=sum(math.prod(p.value.shape) for p in new if p.value is not None),
                multiply_adds=module.multiply_adds(x_shape, shape),
                activation_bytes=math.prod(shape[1:]) * _itemsize(y),
                joins=self.joined(module),
            )
        )

    def joined(self, module: Module) -> str:
        """The convolution that takes the module into its pass; asked when all values of both are made."""
        stretch, x = self.within.pop(id(module), (None, None))
        return self.names.get(id(stretch.conv), "") if stretch is not None and stretch.joins(x) else ""


def _itemsize(y: Array) -> int:
    """Bytes of one element (NumPy knows the names of all dtypes but one)."""
    name = dtype_name(y.dtype)
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "1"


def _numbers(parameters: int, multiply_adds: int, activation_bytes: int) -> tuple[str, str, str]:
    size = (
        f"{activation_bytes / 2**20:,.2f} MiB" if activation_bytes >= 2**19 else f"{activation_bytes / 2**10:,.1f} KiB"
    )
    return f"{parameters:,}", f"{multiply_adds:,}", size


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    texts, figures = zip(cells[:4], widths[:4], strict=True), zip(cells[4:], widths[4:], strict=True)
    return "  ".join([*(cell.ljust(w) for cell, w in texts), *(cell.rjust(w) for cell, w in figures)]).rstrip()
