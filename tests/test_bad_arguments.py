"""Bad arguments of linear layers, normalisations, activations and losses: the message names rule and values."""

from __future__ import annotations

import numpy as np
import pytest

from xpconv import ops

X, C = np.ones((4, 5, 6, 8), "float32"), np.ones(8, "float32")
ROWS, LABELS = np.ones((4, 3), "float32"), np.zeros(4, int)

# (what is called, the error, words that its message must hold)
BAD = {
    "linear: inputs": (
        lambda: ops.linear(X, np.ones((7, 3), "f4")),
        ValueError,
        ["expects 7 inputs", "provides 8", "equal w.shape[0]."],
    ),
    "linear: w turned": (lambda: ops.linear(X, np.ones((7, 8), "f4")), ValueError, ["expects 7 inputs", "as w.T."]),
    "linear: rank of w": (lambda: ops.linear(X, C), ValueError, ["(in, out)", "w (8,)"]),
    "linear: bias": (lambda: ops.linear(X, np.ones((8, 3), "f4"), C), ValueError, ["b must have shape (3,)"]),
    "linear: activation": (
        lambda: ops.linear(X, np.ones((8, 3), "f4"), activation="elu"),
        ValueError,
        ["'elu' is not known", "'relu6'"],
    ),
    "batch_norm: one axis": (lambda: ops.batch_norm(C, None, None), ValueError, ["at least 2 axes", "(8,)"]),
    "batch_norm: gamma": (lambda: ops.batch_norm(X, C[:3], None), ValueError, ["gamma must have shape (8,)", "(3,)"]),
    "batch_norm: half of the statistics": (
        lambda: ops.batch_norm(X, C, C, C),
        ValueError,
        ["mean and var go together"],
    ),
    "batch_norm: residual": (
        lambda: ops.batch_norm(X, C, C, residual=X[:1]),
        ValueError,
        ["residual must have shape", "residual (N=1, "],
    ),
    "batch_norm: eps": (lambda: ops.batch_norm(X, C, C, eps=-1.0), ValueError, ["eps", "-1.0"]),
    "layer_norm: no such axis": (lambda: ops.layer_norm(X, axes=4), ValueError, ["4 axes of x", "not 4"]),
    "layer_norm: an axis twice": (lambda: ops.layer_norm(X, axes=(1, -3)), ValueError, ["each once", "(1, -3)"]),
    "layer_norm: axis 1.5": (lambda: ops.layer_norm(X, axes=1.5), TypeError, ["axes must be integers", "1.5"]),
    "layer_norm: gamma": (lambda: ops.layer_norm(X, C, axes=(2, 3)), ValueError, ["gamma must have shape (6, 8)"]),
    "instance_norm: rank": (lambda: ops.instance_norm(ROWS), ValueError, ["(N, *spatial, C)"]),
    "group_norm: groups": (lambda: ops.group_norm(X, 3), ValueError, ["num_groups=3", "8 channels"]),
    "group_norm: no group": (lambda: ops.group_norm(X, 0), ValueError, ["num_groups must be at least 1"]),
    "local_response_norm: size": (lambda: ops.local_response_norm(X, 0), ValueError, ["size must be at least 1"]),
    "local_response_norm: alpha": (
        lambda: ops.local_response_norm(X, 3, alpha="1e-4"),
        TypeError,
        ["alpha must be a real number", "'1e-4'"],
    ),
    "local_response_norm: beta": (lambda: ops.local_response_norm(X, 3, beta=True), TypeError, ["beta must be a real"]),
    "local_response_norm: k": (
        lambda: ops.local_response_norm(X, 3, k=float("nan")),
        ValueError,
        ["k must be a number"],
    ),
    "prelu: slope": (lambda: ops.prelu(X, C[:3]), ValueError, ["slope must have shape (8,)", "slope (3,)"]),
    "leaky_relu: slope": (lambda: ops.leaky_relu(X, "a"), TypeError, ["slope must be a real number", "'a'"]),
    "clip: nan": (lambda: ops.clip(X, float("nan")), ValueError, ["min must be a number", "nan"]),
    "gelu: approximation": (lambda: ops.gelu(X, approximate="erf"), ValueError, ["'erf' is not known", "'tanh'"]),
    "silu: integers": (lambda: ops.silu(LABELS), TypeError, ["not int64", "astype"]),
    "softmax: axis": (lambda: ops.softmax(X, axis=4), ValueError, ["axis 4", "4 axes"]),
    "cross-entropy: floating labels": (
        lambda: ops.softmax_cross_entropy(ROWS, ROWS[:, 0]),
        TypeError,
        ["labels must be integers, not float32", "argmax"],
    ),
    "cross-entropy: shapes": (
        lambda: ops.softmax_cross_entropy(ROWS, LABELS[:3]),
        ValueError,
        ["(..., classes)", "logits (4, 3) float32", "labels (3,) int64"],
    ),
    "cross-entropy: reduction": (
        lambda: ops.softmax_cross_entropy(ROWS, LABELS, reduction="max"),
        ValueError,
        ["'max' is not known", "'mean', 'sum', 'none'"],
    ),
    "cross-entropy: smoothing": (
        lambda: ops.softmax_cross_entropy(ROWS, LABELS, label_smoothing=1.1),
        ValueError,
        ["at most 1", "1.1"],
    ),
    "mse: shapes": (lambda: ops.mse(ROWS, ROWS[:1]), ValueError, ["same shape", "target (1, 3)"]),
    "mse: dtypes": (lambda: ops.mse(ROWS, ROWS.astype("f8")), TypeError, ["share library, device and dtype"]),
}


@pytest.mark.parametrize("name", BAD)
def test_the_message_says_what_is_wrong(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_labels_of_another_library_are_named():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="logits of numpy on cpu · labels of array_api_strict"):
        ops.softmax_cross_entropy(ROWS, strict.asarray(LABELS))
