"""Problems as the library's graphs: tensors with their dimensions and strides, one convolution, what is fused to it."""

from __future__ import annotations

from typing import Any

import cudnn

from xpconv.engines.cudnn.layouts import strides
from xpconv.engines.cudnn.problem import Dims, Problem

# By dtype: what tensors hold, and what sums and all between the operands are kept in.
TYPES = {
    "float16": ("HALF", "FLOAT"),
    "bfloat16": ("BFLOAT16", "FLOAT"),
    "float32": ("FLOAT", "FLOAT"),
    "float64": ("DOUBLE", "DOUBLE"),
}
# Activations that the library has, by its name for them, with the options that make them ours.
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("relu", {}),
    "relu6": ("relu", {"lower_clip": 0.0, "upper_clip": 6.0}),
    "silu": ("swish", {}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "softplus": ("softplus", {}),
}


def refused_notes(problem: Problem) -> list[Any]:
    """Numeric notes that no plan for the problem may carry.

    Half precision is summed in float32. Under ``ieee`` the matrix cores, which round float32 to TF32, are out of bounds
    for it; so are Winograd's transforms and Fourier's for every dtype, since they spread an infinity to outputs whose
    windows hold none.
    """
    note = cudnn.numerical_note
    notes = [note.REDUCED_PRECISION_REDUCTION]
    if problem.deterministic:
        notes.append(note.NONDETERMINISTIC)
    if problem.precision == "ieee":
        notes += [note.WINOGRAD, note.FFT]
        if problem.dtype == "float32":
            notes += [note.TENSOR_CORE, note.DOWN_CONVERT_INPUTS]
    return notes


def drawn(problem: Problem, place: dict[str, Any]) -> Any:
    """The problem's graph, not planned yet; operands are numbered from 1 in the order in which they are passed."""
    io, wide = (getattr(cudnn.data_type, name) for name in TYPES[problem.dtype])
    graph = cudnn.pygraph(io_data_type=io, intermediate_data_type=wide, compute_data_type=wide, **place)
    _Drawing(graph, io, wide, problem).draw()
    return graph


class _Drawing:
    """A graph in the making."""

    def __init__(self, graph: Any, io: Any, wide: Any, problem: Problem) -> None:
        self.graph, self.io, self.wide, self.problem = graph, io, wide, problem
        self.operands = 0

    def draw(self) -> None:
        p, graph = self.problem, self.graph
        if p.direction == "fprop":
            x, w = self.operand("x", p.x), self.operand("w", p.w)
            self.finish(graph.conv_fprop(image=x, weight=w, **self.window()), p.y)
        elif p.direction == "dgrad":
            dy, w = self.operand("dy", p.y), self.operand("w", p.w)
            self.finish(graph.conv_dgrad(loss=dy, filter=w, **self.window()), p.x)
        else:
            x, dy = self.operand("x", p.x), self.operand("dy", p.y)
            self.finish(graph.conv_wgrad(image=x, loss=dy, **self.window()), p.w)

    def finish(self, sums: Any, dims: Dims) -> None:
        """What is fused: activation(sums · scale + bias + residual), and the sums themselves where they are kept."""
        p, graph = self.problem, self.graph
        sums.set_dim(list(dims)).set_stride(strides(dims, p.layout))
        if p.scale:
            sums = graph.mul(a=sums, b=self.vector("scale", dims))
        if p.bias:
            sums = graph.bias(input=sums, bias=self.vector("bias", dims))
        if p.residual:
            sums = graph.add(a=sums, b=self.operand("residual", dims))
        result = sums
        if p.activation is not None:
            name, options = ACTIVATIONS[p.activation]
            result = getattr(graph, name)(input=sums, **options)
        self.output(result, dims)
        if p.keep_sums:
            self.output(sums, dims)

    def vector(self, name: str, dims: Dims) -> Any:
        """One number for each channel: in what sums are kept in where they are scaled."""
        return self.operand(name, (1, dims[1], *(1 for _ in dims[2:])), self.wide if self.problem.scale else None)

    def operand(self, name: str, dims: Dims, holding: Any = None) -> Any:
        self.operands += 1
        like = {"dim": list(dims), "stride": strides(dims, self.problem.layout), "data_type": holding or self.io}
        return self.graph.tensor(name=name, uid=self.operands, **like)

    def output(self, tensor: Any, dims: Dims) -> None:
        self.operands += 1
        tensor.set_output(True).set_data_type(self.io).set_uid(self.operands)
        tensor.set_dim(list(dims)).set_stride(strides(dims, self.problem.layout))

    def window(self) -> dict[str, list[int]]:
        p, w = self.problem, self.problem.window
        return {
            "pre_padding": list(p.spatial(tuple(before for before, _ in w.padding), 0)),
            "post_padding": list(p.spatial(self.after(), 0)),
            "stride": list(p.spatial(w.stride, 1)),
            "dilation": list(p.spatial(w.dilation, 1)),
        }

    def after(self) -> Dims:
        """Padding at the ends: as it is where the library then counts our windows, else up to the last window."""
        w = self.problem.window
        return tuple(
            after if (n + before + after - cells) // s == 0 else cells - n - before
            for n, cells, s, (before, after) in zip(w.size, w.padded, w.stride, w.padding, strict=True)
        )
