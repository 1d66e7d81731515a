"""The table of operators, and what one is given: a node whose attributes and constants are read once, at load."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.backend import Array

OLDEST, NEWEST = 6, 28  # versions of ONNX's operator set that the table speaks for

# The tensor types that a graph may use, by their number in ONNX.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
}


def dtype_told(number: int) -> str:
    """How messages name a tensor type, one that ONNX does not have too."""
    from onnx import TensorProto

    known = number in TensorProto.DataType.values()
    return TensorProto.DataType.Name(number).lower() if known else f"number {number}"


class UnsupportedError(NotImplementedError):
    """A model that is sound but needs what xpconv does not have; the message names all of it, and where."""


class Refusal(Exception):  # noqa: N818 - never leaves the package: it becomes a line of an UnsupportedError
    """Why one node cannot be run, told while it is built."""


class Order(enum.Enum):
    """In which order of axes an operator takes its arrays."""

    FIRST = "ONNX's"
    LAST = "the channels last, in the first input and in every output of the rank of an image"
    ANY = "whatever they come in, all in the same: elementwise, with broadcasting"
    AXES = "whatever they come in, all in the same; the operator is told which, as `Axes` before the arrays"


@dataclass(frozen=True, slots=True)
class Step:
    """A node made ready: what runs it, with attributes and versions settled."""

    run: Callable[..., Any]
    order: Order | None = None  # None: the operator's
    # By input: what it goes through before it gets to `run`; once at load where it is constant, and packed for engines.
    convert: Mapping[int, Callable[[Array], Array]] = field(default_factory=dict)
    images: tuple[int, ...] = (0,)  # inputs that Order.LAST turns
    activated: Callable[[str], Step] | None = None  # the same with an activation applied as sums are stored


@dataclass
class Node:
    """One node of a graph, as the operators read it."""

    op: str
    version: int  # of the operator set of its domain
    inputs: tuple[str, ...]  # "" where an optional one is left out
    outputs: tuple[str, ...]
    label: str
    attributes: dict[str, Any]
    constants: Mapping[str, np.ndarray]  # all that are known at load; let go once the node is built
    _read: set[str] = field(default_factory=set)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        self._read.add(name)
        return self.attributes.get(name, default)

    def one_of(self, name: str, default: Any, known: tuple[Any, ...]) -> Any:
        """An attribute that takes one of a few values."""
        value = self.get(name, default)
        if value not in known:
            raise Refusal(f"{name}={value!r} (known: {', '.join(map(repr, known))})")
        return value

    def constant(self, i: int) -> np.ndarray | None:
        """An input whose value is known at load."""
        return self.constants.get(self.inputs[i]) if self.has(i) else None

    def has(self, i: int) -> bool:
        """Whether an optional input is there."""
        return i < len(self.inputs) and bool(self.inputs[i])

    def unread(self) -> list[str]:
        """Attributes that nothing asked for."""
        return [name for name in self.attributes if name not in self._read]


Build = Callable[[Node], "Step | Callable[..., Any]"]


@dataclass(frozen=True, slots=True)
class Operator:
    """How the nodes of one type are built and what they are given."""

    build: Build
    order: Order
    host: tuple[int, ...]  # inputs that are wanted as NumPy arrays: shapes, axes, bounds; -1: all

    def make(self, node: Node) -> Step:
        """The node made ready; `Refusal` if it asks for what is not there."""
        step = self.build(node)
        node.constants = {}  # steps may keep the node, which must not keep all tensors of the model
        if node.unread():
            raise Refusal(f"attributes {', '.join(node.unread())}")
        return step if isinstance(step, Step) else Step(step)


TABLE: dict[str, Operator] = {}  # of the domain "", or "ai.onnx"


def operator(*names: str, order: Order = Order.FIRST, host: tuple[int, ...] = ()) -> Callable[[Build], Build]:
    """Enter a function that builds nodes of these types into the table."""

    def enter(build: Build) -> Build:
        TABLE.update(dict.fromkeys(names, Operator(build, order, host)))
        return build

    return enter
