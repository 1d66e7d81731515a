"""An interpreter of cuDNN graphs: what a plan would compute, read from the library's own description of its graph.

It knows nothing of the engine that drew the graph. Operands are memory at addresses, with the dimensions, strides and
dtypes that the graph declares; a convolution is a sum over kernel cells with the declared padding, stride and dilation.
Sums are exact to double precision and then rounded to the graph's intermediate dtype, in which the rest is done: in
what order a kernel sums, and how far it drifts on the way, no description of a graph tells.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import struct

import numpy as np

WIDE = {"FLOAT": "float32", "DOUBLE": "float64"}
BYTES = {"HALF": 2, "BFLOAT16": 2, "FLOAT": 4, "DOUBLE": 8}
ALIGNMENT = 16  # what plans take for granted of every address

launches: list[str] = []  # what the graphs run since somebody last cleared it consist of


def execute(graph, pointers, workspace, index, handle):
    """Run a graph on host memory, or have an emulated capture record that."""
    from cupy import _capture

    described = json.loads(repr(graph))
    assert graph.get_workspace_size_plan_at_index(index) == 0 or workspace, "a plan without its workspace"

    def run():
        launches.append(" ".join(node.get("mode", node["tag"]) for node in described["nodes"]))
        Interpreter(described, pointers).run()

    if _capture.capturing():
        _capture.record(run)
    else:
        run()


def dtype_of(name: str):
    if name == "BFLOAT16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype({"HALF": "float16", **WIDE}[name])


class Interpreter:
    """One run of one graph."""

    def __init__(self, described: dict, pointers: dict[int, int]) -> None:
        self.nodes = described["nodes"]
        self.tensors = {t["uid"]: t for t in described["tensors"]}
        self.wide = WIDE[described["context"]["intermediate_data_type"]]
        self.memory = {uid: self.view(uid, address) for uid, address in pointers.items()}
        self.values: dict[int, np.ndarray] = {}
        real = {uid for uid, t in self.tensors.items() if not t["is_virtual"]}
        assert real == set(pointers), f"the graph has operands {sorted(real)}, the call {sorted(pointers)}"

    def view(self, uid: int, address: int) -> np.ndarray:
        """The memory of an operand as an array with the declared dimensions and strides."""
        t = self.tensors[uid]
        assert address, f"{t['name']} has no address"
        assert address % ALIGNMENT == 0, f"{t['name']} is not aligned"
        reach = 1 + sum((n - 1) * s for n, s in zip(t["dim"], t["stride"], strict=True))
        memory = (ctypes.c_char * (reach * BYTES[t["data_type"]])).from_address(address)
        flat = np.frombuffer(memory, dtype=dtype_of(t["data_type"]))
        strides = [s * flat.itemsize for s in t["stride"]]
        return np.lib.stride_tricks.as_strided(flat, t["dim"], strides, writeable=True)

    def run(self) -> None:
        for node in self.nodes:
            given = {port: self.value(uid) for port, uid in node["inputs"].items()}
            (uid,) = node["outputs"].values()
            with np.errstate(all="ignore"):
                result = getattr(self, node["tag"].lower())(node, given, tuple(self.tensors[uid]["dim"]))
            result = result.astype(self.wide)
            assert result.shape == tuple(self.tensors[uid]["dim"])
            if uid in self.memory:
                self.memory[uid][...] = result.astype(self.memory[uid].dtype)
                result = result if self.is_read(uid) else None
            self.values[uid] = result

    def value(self, uid: int) -> np.ndarray:
        return self.values[uid] if uid in self.values else self.memory[uid].astype(self.wide)

    def is_read(self, uid: int) -> bool:
        return any(uid in node["inputs"].values() for node in self.nodes)

    # -- convolutions ------------------------------------------------------------------------------------------------

    def conv_fprop(self, node, given, shape):
        x, w = padded(given["X"], node), given["W"].astype(float)
        y = np.zeros(shape)
        for group, outputs in groups(x.shape[1], w):
            for cell, place in cells(node, w.shape[2:], shape[2:]):
                product = np.tensordot(w[(outputs, slice(None), *cell)], x[(slice(None), group, *place)], ([1], [1]))
                y[:, outputs] += np.moveaxis(product, 0, 1)
        return y

    def conv_dgrad(self, node, given, shape):
        dy, w = given["DY"].astype(float), given["W"]
        dx = padded(np.zeros(shape), node)
        for group, outputs in groups(shape[1], w):
            for cell, place in cells(node, w.shape[2:], dy.shape[2:]):
                product = np.tensordot(w[(outputs, slice(None), *cell)], dy[:, outputs], ([0], [1]))
                dx[(slice(None), group, *place)] += np.moveaxis(product, 0, 1)
        return cropped(dx, node, shape)

    def conv_wgrad(self, node, given, shape):
        x, dy = padded(given["X"], node), given["DY"].astype(float)
        dw = np.zeros(shape)
        rest = [0, *range(2, dy.ndim)]
        for group, outputs in groups(x.shape[1], dw):
            for cell, place in cells(node, shape[2:], dy.shape[2:]):
                part = x[(slice(None), group, *place)]
                dw[(outputs, slice(None), *cell)] = np.tensordot(dy[:, outputs], part, (rest, rest))
        return dw

    # -- pointwise ---------------------------------------------------------------------------------------------------

    def pointwise(self, node, given, shape):
        a, mode = given["IN_0"], node["mode"]
        if mode in ("ADD", "MUL"):
            return a + given["IN_1"] if mode == "ADD" else a * given["IN_1"]
        if mode == "RELU_FWD":
            low, high = (number(node[f"relu_{end}_clip"]) for end in ("lower", "upper"))
            return np.clip(a, 0 if low is None else low, np.inf if high is None else high)
        simple = {
            "SIGMOID_FWD": lambda: 1 / (1 + np.exp(-a)),
            "TANH_FWD": lambda: np.tanh(a),
            "SOFTPLUS_FWD": lambda: np.logaddexp(a, 0),
            "SWISH_FWD": lambda: a / (1 + np.exp(-a)),
        }
        return simple[mode]()


def number(written: str | None) -> float | None:
    """A float32 that the description has as the hexadecimal digits of its bits."""
    return None if written is None else struct.unpack(">f", bytes.fromhex(written))[0]


def padded(x: np.ndarray, node: dict) -> np.ndarray:
    return np.pad(x, [(0, 0), (0, 0), *zip(node["pre_padding"], node["post_padding"], strict=True)])


def cropped(x: np.ndarray, node: dict, shape: tuple[int, ...]) -> np.ndarray:
    places = zip(node["pre_padding"], shape[2:], strict=True)
    return x[(slice(None), slice(None), *(slice(before, before + n) for before, n in places))]


def groups(channels: int, w: np.ndarray):
    """Input and output channels of each group; how many there are follows from the weights."""
    count = channels // w.shape[1]
    outputs = w.shape[0] // count
    for g in range(count):
        yield slice(g * w.shape[1], (g + 1) * w.shape[1]), slice(g * outputs, (g + 1) * outputs)


def cells(node: dict, kernel: tuple[int, ...], out: tuple[int, ...]):
    """Each cell of the kernel, and where it falls on the padded input."""
    for cell in itertools.product(*map(range, kernel)):
        axes = zip(cell, node["dilation"], node["stride"], out, strict=True)
        yield cell, tuple(slice(j * d, j * d + (m - 1) * s + 1, s) for j, d, s, m in axes)
