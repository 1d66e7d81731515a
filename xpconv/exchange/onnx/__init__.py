"""ONNX: somebody's trained network in, and a network of this package out.

    model = exchange.onnx.load("net.onnx")      # parsed, checked, folded and planned once
    scores = model(images)["scores"]            # (N, C, H, W) of NumPy, CuPy, torch, ...; it runs where they live
    exchange.onnx.save(net, "mine.onnx", (32, 32, 3))

`load` takes these operators, of ONNX's operator sets 6 to 28, and older ones where an operator has not changed since.
Convolutions, pools, normalisations and activations run through `xpconv.ops`, and so on its engines.

---
convolution    Conv ConvTranspose
pooling        MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool MaxUnpool
normalisation  BatchNormalization InstanceNormalization GroupNormalization LayerNormalization LRN
activation     Relu LeakyRelu PRelu Elu Celu Selu Gelu Mish Swish Sigmoid HardSigmoid HardSwish Softplus Softsign Tanh
               ThresholdedRelu Shrink Clip Softmax LogSoftmax Hardmax Erf Dropout
matrices       Gemm MatMul
size           Pad Resize Upsample DepthToSpace SpaceToDepth
shape          Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Expand Tile Gather GatherElements Identity
               Shape Size Constant ConstantOfShape Range
arithmetic     Add Sub Mul Div Mod Pow Neg Abs Sign Reciprocal Sqrt Exp Log Sin Cos Ceil Floor Round Sum Mean Max Min
logic          Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsNaN IsInf Where Cast CastLike
reduction      ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum
               ReduceLogSumExp ArgMax ArgMin

Not there, and named by an `UnsupportedError` with the nodes that need it: control flow, sequences, strings, bfloat16,
floats of 8 bits and less, integers of less than 8, quantised arithmetic, attention and recurrent layers; of what is
above, dropout that drops, and batch norm in training before operator set 14.

ONNX's node tests, and those that its package has of PyTorch's exporter and of nine whole architectures, are run through
ONNX's own runner by this project's tests. `Backend` is the interface that runner asks for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpconv.exchange.onnx.backend import Backend
    from xpconv.exchange.onnx.model import Model, load
    from xpconv.exchange.onnx.table import UnsupportedError
    from xpconv.exchange.onnx.writing.save import save

__all__ = ["Backend", "Model", "UnsupportedError", "load", "save"]

# Found at first use: only `Backend` and what reads files needs the onnx package.
_HOMES = {"Backend": "backend", "Model": "model", "UnsupportedError": "table", "load": "model", "save": "writing.save"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"xpconv.exchange.onnx.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xpconv.exchange.onnx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
