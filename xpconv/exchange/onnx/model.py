"""A loaded model: a plan of its nodes, made once, that any backend's arrays run through."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.arrays import check_array
from xpconv.backend import Array, Backend, backend_of, get, library
from xpconv.errors import dtype_name, message
from xpconv.exchange.onnx import plan, running
from xpconv.exchange.onnx.graph import Port, parse
from xpconv.exchange.onnx.values import Constant, is_host, plain
from xpconv.settings import current


class Outputs(tuple[Array, ...]):
    """The arrays that a model gives, in the graph's order; also by name, as in ``outputs["logits"]``."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], arrays: list[Array]) -> Outputs:
        """The arrays under their names."""
        outputs = cls(arrays)
        outputs.names = names
        return outputs

    def __getitem__(self, which: Any) -> Any:
        """The output at a position or of a name."""
        if isinstance(which, str):
            if which not in self.names:
                known = f"known: {', '.join(self.names)}"
                raise KeyError(message("onnx", f"no output is called {which!r}.", "", known))
            which = self.names.index(which)
        return super().__getitem__(which)


class Model:
    """An ONNX graph that runs where its inputs live; `load` makes it.

    Attributes
    ----------
    inputs : tuple of Port
        Name, dtype and shape of each input, in the graph's order.
    output_names : tuple of str
    """

    def __init__(self, source: Any) -> None:
        """Parse, check and plan; the arguments and errors are those of `load`."""
        graph = parse(source)
        self._subject = graph.subject
        self.inputs: tuple[Port, ...] = graph.inputs
        self.output_names = graph.outputs
        self._optional = frozenset(port.name for port in graph.inputs if port.optional)
        self._plans = {frozenset[str](): plan.make(graph)}  # by the optional inputs that are given
        self._graph = graph if self._optional else None

    def __call__(self, /, *arrays: Array, **named: Array) -> Outputs:
        """Run the graph.

        Parameters
        ----------
        *arrays, **named : array
            The inputs, by position or by name, in ONNX's order of axes (N, C, *spatial), all of one library and
            device; inputs that have a value in the model may be left out.

        Returns
        -------
        Outputs
            A tuple of arrays of the same library and device, also found by name; an output may be a view.

        Raises
        ------
        TypeError
            For inputs that are not the model's, or of another dtype; nothing is cast silently.
        ValueError
            For a shape that is not the model's.
        """
        given = self._bound(arrays, named)
        place = backend_of(next(iter(given.values()))) if given else get(current().backend)
        works, constants = self._plan(self._optional.intersection(given))
        values: dict[str, Any] = {**constants, **given}
        with np.errstate(all="ignore"):  # infinities and nan are results like others
            for work in works:
                sources = [values[s] if isinstance(s, str) else s for s in work.sources]
                try:
                    results = running.run(work.task.step, work.task.operator, sources, place)
                except Exception as error:
                    error.add_note(f"in {work.task.node.op}, {work.task.node.label}, of {self._subject}")
                    raise
                values.update(zip(work.task.node.outputs, results, strict=False))
                for name in work.forget:
                    values.pop(name, None)
        return Outputs.of(self.output_names, [_given_back(values[name], place) for name in self.output_names])

    def _plan(self, replaced: frozenset[str]) -> plan.Plan:
        """The plan in which some constants are given as inputs, made at its first use."""
        found = self._plans.get(replaced)
        if found is None:
            assert self._graph is not None
            found = self._plans[replaced] = plan.make(self._graph, replaced)
        return found

    def _bound(self, arrays: tuple[Array, ...], named: dict[str, Array]) -> dict[str, Array]:
        """The inputs by name, checked."""
        ports = {port.name: port for port in self.inputs}
        names = list(ports)
        given = {**dict(zip(names, arrays, strict=False)), **named}
        wrong = [f"{len(arrays)} arrays for {len(names)} inputs"] if len(arrays) > len(names) else []
        wrong += [f"{name} is given twice" for name in names[: len(arrays)] if name in named]
        wrong += [f"{name} is not an input" for name in named if name not in ports]
        wrong += [f"{p.name} is missing" for p in self.inputs if p.name not in given and not p.optional]
        if wrong:
            known = " · ".join(map(str, self.inputs))
            raise TypeError(message(self._subject, "the inputs are not the model's.", "; ".join(wrong), known))
        first: Array = None
        for name, x in given.items():
            self._check(ports[name], x)
            first = x if first is None else first
            if library(x) != library(first) or x.device != first.device:
                places = f"{library(first)} on {first.device} and {library(x)} on {x.device}"
                raise TypeError(message(self._subject, "the inputs must be of one library and device.", places))
        return given

    def _check(self, port: Port, x: Array) -> None:
        check_array(self._subject, port.name, x)
        shape = tuple(x.shape)
        given = f"given: {dtype_name(x.dtype)} {shape}"
        if dtype_name(x.dtype) != port.dtype:
            raise TypeError(
                message(
                    self._subject,
                    f"{port.name!r} must be of {port.dtype}.",
                    given,
                    f"cast it first: x.astype({port.dtype!r}).",
                )
            )
        fixed = port.shape is None or (
            len(shape) == len(port.shape)
            and all(n == m or not isinstance(n, int) for n, m in zip(port.shape, shape, strict=True))
        )
        if not fixed:
            sizes = ", ".join(str(n or "?") for n in port.shape or ())
            turned = port.shape is not None and 2 < len(shape) == len(port.shape) and shape[-1] == port.shape[1]
            single = port.shape is not None and len(shape) == len(port.shape) - 1
            remedy = "one example becomes a batch with x[None]." if single else ""
            remedy = "the model takes channels first, (N, C, *spatial): exchange.to_nchw(x)." if turned else remedy
            raise ValueError(message(self._subject, f"{port.name!r} must be of shape ({sizes}).", given, remedy))

    def __repr__(self) -> str:
        nodes = len(self._plans[frozenset()].works)
        return f"Model({', '.join(map(str, self.inputs))} -> {', '.join(self.output_names)}, {nodes} nodes)"


def _given_back(value: Any, place: Backend) -> Array:
    """An output in ONNX's order of axes, where the inputs were."""
    if isinstance(value, Constant):
        return place.xp.asarray(value.on(place).value, copy=True)
    x = plain(value)
    return place.asarray(x) if place.library != "numpy" and is_host(x) else x


def load(source: Any) -> Model:
    """Make a callable model of an ONNX file.

    The graph is parsed, checked, folded and planned once: nodes of constants are computed, convolution weights are
    turned to this package's order, and activations are drawn into the convolutions before them. Between layers that
    can work with channels last, nothing is transposed.

    Parameters
    ----------
    source : str, path, or onnx.ModelProto
        Data files beside the model must lie in its folder.

    Returns
    -------
    Model
        ``model(x)`` gives a tuple, ``model(x)["name"]`` one output; it runs where x lives.

    Raises
    ------
    FileError
        If the file is truncated, no ONNX model, unsound, or names data outside its folder.
    UnsupportedError
        If it needs operators, attributes, versions or types that xpconv does not have; all are named at once.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import parser
    >>> from xpconv import exchange
    >>> text = '<ir_version: 10, opset_import: ["": 21]> g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }'
    >>> exchange.onnx.load(parser.parse_model(text))(np.array([[-1.0, 2.0]], dtype="float32"))["y"].tolist()
    [[0.0, 2.0]]
    """
    return Model(source)
