"""The ops: activations ``(N, *spatial, C)``, weights ``(*kernel, C / groups, O)``, 1 to 3 spatial axes.

Each is a docstring, the validation of its arguments, and the primitive it asks an engine for. Gradients of every
one come from `xpconv.vjp`.
"""

from typing import TYPE_CHECKING

from xpconv import hints
from xpconv.ops.activation import hard_swish, relu, relu6, sigmoid, silu, softplus, tanh
from xpconv.ops.adaptive import adaptive_avg_pool, adaptive_max_pool, global_avg_pool, global_max_pool
from xpconv.ops.add import add
from xpconv.ops.conv import conv, conv_transpose
from xpconv.ops.dropout import dropout
from xpconv.ops.linear import linear
from xpconv.ops.loss import binary_cross_entropy_with_logits, mse, softmax_cross_entropy
from xpconv.ops.norm import batch_norm, group_norm, instance_norm, layer_norm
from xpconv.ops.pad import pad
from xpconv.ops.parametric import clip, elu, gelu, hard_sigmoid, leaky_relu, prelu
from xpconv.ops.pool import avg_pool, lp_pool, max_pool, max_unpool
from xpconv.ops.resize import resize
from xpconv.ops.response_norm import local_response_norm
from xpconv.ops.softmax import log_softmax, softmax

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "clip",
    "conv",
    "conv_transpose",
    "dropout",
    "elu",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "mse",
    "pad",
    "prelu",
    "relu",
    "relu6",
    "resize",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
]

if not TYPE_CHECKING:  # which would take every name for one that is there
    __getattr__ = hints.missing(__name__)
