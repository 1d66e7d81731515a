"""ONNX's own interface to what runs its models, `onnx.backend.base.Backend`: CPU is NumPy, CUDA is CuPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, shape_inference
from onnx.backend.base import Backend as Base
from onnx.backend.base import BackendRep, Device, DeviceType, namedtupledict
from onnx.defs import onnx_opset_version

from xpconv.backend import get, to_numpy
from xpconv.errors import BackendError, message
from xpconv.exchange.onnx.model import Model
from xpconv.exchange.onnx.table import NEWEST, UnsupportedError


class Prepared(BackendRep):
    """A model on a device."""

    def __init__(self, model: Model, place: str) -> None:
        """Take a loaded model, and the backend that its inputs go to."""
        self.model, self.place = model, place

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model.

        Parameters
        ----------
        inputs : list or tuple of array, dict of str to array, or one array

        Returns
        -------
        named tuple of NumPy array
        """
        place = get(self.place)
        if isinstance(inputs, Mapping):
            results = self.model(**{name: place.asarray(x) for name, x in inputs.items()})
        else:
            several = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            results = self.model(*(place.asarray(x) for x in several))
        names = self.model.output_names
        return namedtupledict("Outputs", names)(*(to_numpy(y) for y in results))


class Backend(Base):
    """Runs ONNX models: on the device ``"CPU"`` with NumPy, on ``"CUDA"`` or ``"CUDA:1"`` with CuPy."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator, attribute, version and type of the model is there."""
        try:
            Model(model)
        except UnsupportedError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Load a model for a device; errors as those of `exchange.onnx.load`, and `BackendError` for the device."""
        place = _place(device)
        get(place)
        return Prepared(Model(model), place)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Load a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node, as a graph of its own; ``opset_version`` among the keywords is that of the operator set."""
        present = [name for name in node.input if name]
        given = inputs if isinstance(inputs, Mapping) else dict(zip(present, inputs, strict=True))
        graph = helper.make_graph(
            [node],
            node.op_type,
            [_port(name, np.asarray(given[name])) for name in dict.fromkeys(present)],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        opset = helper.make_opsetid(node.domain, kwargs.get("opset_version", min(NEWEST, onnx_opset_version())))
        model = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset]))
        return cls.run_model(model, given, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether the device can be had here."""
        try:
            get(_place(device))
        except BackendError:
            return False
        return True


def _place(device: str) -> str:
    """The backend that stands for a device of ONNX's."""
    try:
        parsed = Device(device)
    except (AttributeError, ValueError):
        raise BackendError(message("onnx", f"no device is called {device!r}.", "", "'CPU', 'CUDA', 'CUDA:1'")) from None
    return "numpy" if parsed.type == DeviceType.CPU else f"cupy:{parsed.device_id}"


def _port(name: str, x: np.ndarray) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
