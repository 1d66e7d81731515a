"""The operators, by family; importing them fills the table."""

from xpconv.exchange.onnx.operators import (
    activation,
    arithmetic,
    conv,
    logic,
    matrix,
    norm,
    pad,
    pool,
    reduce,
    resize,
    select,
    shape,
    softmax,
    source,
)
from xpconv.exchange.onnx.table import TABLE

__all__ = [
    "TABLE",
    "activation",
    "arithmetic",
    "conv",
    "logic",
    "matrix",
    "norm",
    "pad",
    "pool",
    "reduce",
    "resize",
    "select",
    "shape",
    "softmax",
    "source",
]
