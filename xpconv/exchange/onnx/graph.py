"""A model parsed once: nodes as steps of the table, constants, inputs; all that is not there goes into one error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.backend import get
from xpconv.errors import FileError, message
from xpconv.exchange.onnx import reading, running
from xpconv.exchange.onnx.operators import TABLE
from xpconv.exchange.onnx.table import (
    DTYPES,
    NEWEST,
    OLDEST,
    Node,
    Operator,
    Refusal,
    Step,
    UnsupportedError,
    dtype_told,
)
from xpconv.exchange.onnx.values import plain

_DEFAULT = ("", "ai.onnx")  # names of ONNX's own domain


@dataclass(frozen=True, slots=True)
class Port:
    """An input of the graph: its name, dtype and shape, in which an open size is a name or `None`."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None  # None: of any rank
    optional: bool = False  # a constant stands in for it

    def __str__(self) -> str:
        sizes = "of any rank" if self.shape is None else f"({', '.join(str(n or '?') for n in self.shape)})"
        return f"{self.name} {sizes} {self.dtype}"


@dataclass(frozen=True, slots=True)
class Task:
    """A node of the graph with the step that runs it."""

    node: Node
    operator: Operator
    step: Step


@dataclass
class Graph:
    """What a model is made of."""

    subject: str
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]
    tasks: list[Task] = field(default_factory=list)


def parse(source: Any) -> Graph:
    """The graph of a path or a ModelProto.

    Raises
    ------
    FileError
        If it is no sound model.
    UnsupportedError
        If it needs operators, attributes, versions or types that are not there; it names all of them.
    """
    model, subject = reading.read(source)
    missing = list(_unknown(model))
    try:
        reading.check(model, subject)
    except FileError:
        if missing:  # the checker knows no more of them than the table
            raise _unsupported(subject, missing) from None
        raise
    graph = _graph(model, subject, missing)
    if missing:
        raise _unsupported(subject, missing)
    return graph


def _unsupported(subject: str, missing: list[str]) -> UnsupportedError:
    rule = "the model needs what xpconv does not have."
    remedy = "the operators that it has are listed in the documentation of exchange.onnx."
    return UnsupportedError(message(subject, rule, "\n  ".join(dict.fromkeys(missing)), remedy))


def _unknown(model: Any) -> Iterator[str]:
    """A line for each operator that is not in the table, or not in that version, with the nodes that need it."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", NEWEST))
    if version > NEWEST:
        yield f"operator set {version}: {NEWEST} is the newest that is known"
    needed: dict[str, list[str]] = {}
    for i, node in enumerate(model.graph.node):
        name = node.op_type if node.domain in _DEFAULT else f"{node.domain}.{node.op_type}"
        if name not in TABLE:
            needed.setdefault(name, []).append(_label(i, node))
        elif version < OLDEST and _has_changed(name, version):
            needed.setdefault(f"{name} of operator set {version}, before {OLDEST}", []).append(_label(i, node))
    for name, labels in sorted(needed.items()):
        yield f"{name}: {', '.join(labels)}"


def _has_changed(op: str, version: int) -> bool:
    """Whether an operator meant something else in a version before the oldest that the table speaks for."""
    from onnx import defs

    try:
        return defs.get_schema(op, version).since_version != defs.get_schema(op, OLDEST).since_version
    except defs.SchemaError:
        return True


def _label(i: int, node: Any) -> str:
    """A node by its name, or by what it makes."""
    return f"node {node.name!r}" if node.name else f"node {i} (-> {', '.join(node.output)})"


def _graph(model: Any, subject: str, missing: list[str]) -> Graph:
    constants: dict[str, np.ndarray] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type in DTYPES:
            constants[tensor.name] = reading.array(tensor, subject)
        else:
            missing.append(f"dtype {dtype_told(tensor.data_type)}: tensor {tensor.name!r}")
    missing += [f"sparse tensors: {tensor.values.name!r}" for tensor in model.graph.sparse_initializer]
    # Before version 4 of the format every constant had to be an input too, which says nothing of its use.
    ports = [p for p in map(_checked(missing), model.graph.input) if p is not None]
    inputs = [p for p in ports if p.name not in constants or model.ir_version >= 4]
    open_names = {p.name for p in inputs}
    inputs = [Port(p.name, p.dtype, p.shape, p.name in constants) for p in inputs]
    for value in model.graph.output:
        _checked(missing)(value)
    graph = Graph(subject, tuple(inputs), tuple(value.name for value in model.graph.output), constants)
    known = {name: value for name, value in constants.items() if name not in open_names}
    version = next((e.version for e in model.opset_import if e.domain in _DEFAULT), NEWEST)
    for i, proto in enumerate(model.graph.node):
        if proto.domain in _DEFAULT and proto.op_type in TABLE:
            node = _node(proto, _label(i, proto), version, known, subject)
            operator = TABLE[node.op]
            try:
                step = operator.make(node)
                if all(not name or name in known for name in node.inputs) and not missing:
                    folded = _folded(node, operator, step, known, subject)
                    known.update(folded)
                    constants.update(folded)
                else:
                    graph.tasks.append(Task(node, operator, step))
            except Refusal as refusal:
                missing.append(f"{node.op} with {refusal}: {node.label}")
    return graph


def _node(proto: Any, label: str, version: int, known: dict[str, np.ndarray], subject: str) -> Node:
    from onnx import helper

    try:
        attributes = {a.name: _text(helper.get_attribute_value(a)) for a in proto.attribute}
    except ValueError as error:  # of no known kind, or a text that is none
        raise FileError(message(subject, f"an attribute of {label} is damaged.", str(error))) from error
    return Node(proto.op_type, version, tuple(proto.input), tuple(proto.output), label, attributes, known)


def _folded(
    node: Node, operator: Operator, step: Step, known: dict[str, np.ndarray], subject: str
) -> dict[str, np.ndarray]:
    """The results of a node whose inputs are all known."""
    sources = [known[name] if name else None for name in node.inputs]
    with np.errstate(all="ignore"):
        try:
            results = running.run(step, operator, sources, get("numpy"))
        except (
            ArithmeticError,
            IndexError,
            TypeError,
            ValueError,
        ) as error:  # of the operator, about what the file gave it
            rule = f"{node.op}, {node.label}, does not take its constants."
            raise FileError(message(subject, rule, str(error))) from error
    return dict(zip(node.outputs, map(plain, results), strict=False))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _checked(missing: list[str]) -> Any:
    """A reader of inputs and outputs that notes types which are not there."""

    def port(value: Any) -> Port | None:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            missing.append(f"{(kind or 'untyped').removesuffix('_type')}s: {value.name!r}")
            return None
        tensor = value.type.tensor_type
        if tensor.elem_type not in DTYPES:
            missing.append(f"dtype {dtype_told(tensor.elem_type)}: {value.name!r}")
            return None
        sizes = [_size(d) for d in tensor.shape.dim]
        return Port(value.name, DTYPES[tensor.elem_type], tuple(sizes) if tensor.HasField("shape") else None)

    return port


def _size(axis: Any) -> int | str | None:
    """The cells of an axis; one that is open has a name, or none, or as some exporters write it, -1."""
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else axis.dim_param or None
