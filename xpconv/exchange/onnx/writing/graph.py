"""An ONNX graph in the making: tensors with their shapes and order of axes, nodes, and named parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpconv.backend import to_numpy
from xpconv.errors import FileError, message
from xpconv.nn.state import State

OPSET, IR_VERSION = 21, 10
_LARGEST = 2**31 - 1  # bytes of a protobuf message


class NoForm(Exception):  # noqa: N818 - never leaves the package: it becomes a line of an error
    """Why a layer cannot be written."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph."""

    name: str
    shape: tuple[int, ...]  # in this package's order, (N, *spatial, C)
    first: bool  # whether the tensor itself has its channels first

    @property
    def spatial(self) -> tuple[int, ...]:
        """Its spatial sizes."""
        return self.shape[1:-1]


@dataclass
class Writer:
    """Collects the nodes and parameters of one graph."""

    names: dict[int, str]  # of the network's parameters and buffers, by id
    dtype: str
    nodes: list[Any] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    path: str = ""  # of the layer that is being written
    _taken: set[str] = field(default_factory=set)

    def add(self, op: str, x: Tensor, *others: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> Tensor:
        """A node of x and other tensors by name, with attributes; the result is like x, of another shape if given."""
        from onnx import helper

        name = self._unique(f"{self.path or 'net'}.{op}")
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, [x.name, *others], [name], name=name, **given))
        return replace(x, name=name, shape=x.shape if shape is None else shape)

    def parameter(self, value: Any, arrange: Any = None) -> str:
        """A parameter or buffer under its name, or an array under the layer's, as ``arrange`` lays it out."""
        host = np.asarray(to_numpy(value.value) if isinstance(value, State) else value)
        host = np.ascontiguousarray(host if arrange is None else arrange(host))
        name = self.names[id(value)] if isinstance(value, State) else f"{self.path or 'net'}.constant"
        if name in self.tensors and np.array_equal(self.tensors[name], host) and self.tensors[name].shape == host.shape:
            return name
        name = self._unique(name)
        self.tensors[name] = host
        return name

    def optional(self, value: Any, arrange: Any = None) -> list[str]:
        """A parameter as the last input of a node, or nothing."""
        return [] if value is None else [self.parameter(value, arrange)]

    def channels_first(self, x: Tensor) -> Tensor:
        """x in ONNX's order of axes."""
        if x.first or len(x.shape) < 3:
            return replace(x, first=True)
        rank = len(x.shape)
        return replace(self.add("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)]), first=True)

    def channels_last(self, x: Tensor) -> Tensor:
        """x in this package's order of axes."""
        if not x.first or len(x.shape) < 3:
            return replace(x, first=False)
        return replace(self.add("Transpose", x, perm=[0, *range(2, len(x.shape)), 1]), first=False)

    def _unique(self, name: str) -> str:
        count, free = 1, name
        while free in self._taken or free in self.tensors:
            count, free = count + 1, f"{name}.{count}"
        self._taken.add(free)
        return free

    def model(self, x: Tensor, y: Tensor) -> bytes:
        """The finished model, checked, with the batch axis open."""
        import onnx
        from onnx import helper, numpy_helper

        y = self.add("Identity", self.channels_first(y))  # so that the output has its own name
        self.nodes[-1].output[0] = "output"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        ports = [
            helper.make_tensor_value_info(name, kind, ["N", *_onnx_sizes(t.shape)])
            for name, t in ((x.name, x), ("output", y))
        ]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.tensors.items()]
        if sum(value.nbytes for value in self.tensors.values()) > _LARGEST - 2**20:
            raise FileError(message("onnx.save", "the network is larger than the 2 GiB that one ONNX file holds."))
        graph = helper.make_graph(self.nodes, "xpconv", [ports[0]], [ports[1]], tensors)
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="xpconv")
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def _onnx_sizes(shape: tuple[int, ...]) -> list[int]:
    """The sizes after the batch's, channels first."""
    return [shape[-1], *shape[1:-1]]
