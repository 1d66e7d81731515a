"""Bad input gets an error that names the rule, what was given, and what would work."""

from __future__ import annotations

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn, ops, steps
from xpconv.arguments import flags_of
from xpconv.dispatch import OPS

X = np.ones((8, 32, 32, 6), dtype="float32")
W = np.ones((3, 3, 6, 16), dtype="float32")
NARROW = np.ones((3, 3, 4, 16), dtype="float32")


def of(name):
    if missing(name):
        pytest.skip(missing(name))
    with xpconv.use_backend(name):
        return xpconv.asarray(X)


# (what is called, the error, words that its message must hold)
BAD = {
    "wrong rank": (lambda: ops.conv(X[0, 0], W), ValueError, ["(N, *spatial, C)", "(32, 6)", "x[None]"]),
    "weights of another rank": (lambda: ops.conv(X, W[0]), ValueError, ["an axis per spatial axis", "w (3, 6, 16)"]),
    "channel mismatch": (
        lambda: ops.conv(X, NARROW),
        ValueError,
        [
            "conv: w expects 4 input channels per group but x provides 6.",
            "x (N=8, H=32, W=32, C=6) float32",
            "w (3, 3, C/groups=4, O=16) float32",
            "groups=1",
            "C must equal groups * w.shape[-2]",
            "exchange.to_nhwc / to_hwio",
        ],
    ),
    "one image without a batch": (lambda: ops.conv(X[0], W), ValueError, ["3 in all", "x[None]"]),
    "empty kernel": (lambda: ops.conv(X, W[:0]), ValueError, ["no axis of w may be empty"]),
    "groups that do not divide": (lambda: ops.conv(X, W[:, :, :3, :], groups=3), ValueError, ["multiple of groups=3"]),
    "groups 0": (lambda: ops.conv(X, W, groups=0), ValueError, ["groups must be at least 1"]),
    "transposed channels": (lambda: ops.conv_transpose(X, W), ValueError, ["expects 16 input channels", "provides 6"]),
    "bias of another size": (
        lambda: ops.conv(X, W, np.ones(3, "float32")),
        ValueError,
        ["b must have shape (16,)", "b (3,)"],
    ),
    "residual of another shape": (lambda: ops.conv(X, W, residual=X), ValueError, ["output's shape (8, 30, 30, 16)"]),
    "residual of a transpose, of another shape": (
        lambda: ops.conv_transpose(X, W[..., :6], residual=X),
        ValueError,
        ["conv_transpose: residual must have the output's shape (8, 34, 34, 6)", "residual (N=8, H=32, W=32, C=6)"],
    ),
    "unknown activation": (lambda: ops.conv(X, W, activation="gelu"), ValueError, ["'gelu' is not known", "'relu'"]),
    "kernel too large": (
        lambda: ops.conv(X[:, :2], W, padding=((0, 0), (1, 1))),
        ValueError,
        ["larger than the padded input", "input (2, 32)", "kernel (3, 3)", "more padding"],
    ),
    "dilated kernel too large": (lambda: ops.conv(X, W, dilation=16), ValueError, ["cannot hold a window of 33"]),
    "negative stride": (lambda: ops.conv(X, W, stride=-1), ValueError, ["stride must be at least 1", "stride=-1"]),
    "stride 1.5": (lambda: ops.conv(X, W, stride=1.5), TypeError, ["stride must be integers", "1.5"]),
    "stride 1.0, though 1 was seen before": (lambda: (ops.conv(X, W), ops.conv(X, W, stride=1.0)), TypeError, ["1.0"]),
    "a mode of PyTorch's": (
        lambda: ops.resize(X, 4, mode="linear"),
        ValueError,
        ["mode 'linear' is not known", "PyTorch's 'linear' is mode='bilinear' here", "'nearest-exact'"],
    ),
    "stride True": (lambda: ops.conv(X, W, stride=True), TypeError, ["stride must be integers", "True"]),
    "groups in a pair": (lambda: ops.conv(X, W, groups=(1, 1)), TypeError, ["groups must be an integer, not (1, 1)"]),
    "foreign byte order": (lambda: ops.relu(X.astype(">f4")), TypeError, ["byte order", "newbyteorder"]),
    "torch beside NumPy": (
        lambda: ops.linear(X, of("torch")),
        TypeError,
        ["w of torch", "xpconv.asarray(x, dtype) gives an array of the backend in force"],
    ),
    "two dtypes of torch": (lambda: ops.mse(of("torch"), of("torch").double()), TypeError, ["cast with x.to(...)"]),
    "a cache of another step": (
        lambda: steps.conv_backward(X, (X, {"stride": 1})),
        ValueError,
        ["conv_backward: cache must be what conv_forward returned", "given: a tuple of 2"],
    ),
    "no cache": (lambda: steps.pool_backward(X, None), ValueError, ["(A_prev, hparameters)", "given: a NoneType"]),
    "a step's channels first": (
        lambda: steps.conv_forward(np.moveaxis(X, -1, 1), W, None, {"stride": 1, "pad": 0}),
        ValueError,
        ["conv_forward: W expects n_C_prev = 6 channels", "last axis of A_prev has 32", "exchange.to_nhwc(A_prev)"],
    ),
    "a step without weights": (
        lambda: steps.conv_forward(X, None, None, {"stride": 1, "pad": 0}),
        TypeError,
        ["conv_forward: W is a NoneType"],
    ),
    "masked array to asarray": (lambda: xpconv.asarray(np.ma.ones(3)), TypeError, ["mask", "x.filled(0)"]),
    "dy that is a number": (
        lambda: xpconv.vjp(ops.relu, X)[1](1.0),
        TypeError,
        ["relu: dy is a float", "np.ones_like(y)"],
    ),
    "dy that is masked": (lambda: xpconv.vjp(ops.relu, X)[1](np.ma.array(X)), TypeError, ["dy", "MaskedArray"]),
    "rate as text": (lambda: ops.dropout(X, "0.5", key=(0, 0)), TypeError, ["rate must be a real number"]),
    "smoothing of None": (
        lambda: ops.softmax_cross_entropy(X[0, 0], np.zeros(32, int), label_smoothing=None),
        TypeError,
        ["label_smoothing must be a real number"],
    ),
    "eps below 0": (lambda: ops.layer_norm(X, eps=-1), ValueError, ["eps must be at least 0"]),
    "three strides": (lambda: ops.conv(X, W, stride=(1, 2, 3)), ValueError, ["one per spatial axis", "(1, 2, 3)"]),
    "negative padding": (lambda: ops.conv(X, W, padding=-1), ValueError, ["padding must be at least 0"]),
    "PyTorch's padding": (
        lambda: ops.pad(X, [1, 2, 3, 4]),
        ValueError,
        ["an int or 2 of them", "begin with the last axis, are padding=((3, 4), (1, 2)) here"],
    ),
    "NumPy's padding": (
        lambda: ops.pad(X, ((0, 0), (1, 1), (2, 2), (0, 0))),
        ValueError,
        ["2 (before, after) pairs", "leave out those of N and C: ((1, 1), (2, 2))"],
    ),
    "a backend by the name of another": (
        lambda: xpconv.use_backend("cuda:1"),
        xpconv.BackendError,
        ["no backend is called 'cuda:1'", "'cuda' is 'cupy' here", "known backends: numpy"],
    ),
    "channels first to a layer norm": (
        lambda: nn.LayerNorm((6, 32, 32))(X),
        ValueError,
        ["last axes are (6, 32, 32)", "channels come last: (32, 32, 6)"],
    ),
    "one signal": (lambda: ops.conv(X[0, 0, :, 0], W), ValueError, ["x (32,)", "x[None, :, None]"]),
    "needs for all": (lambda: xpconv.vjp(ops.relu, X, needs=True), ValueError, ["each of 1 arrays (x)", "needs=True"]),
    "a layer that returns no gradient": (
        lambda: xpconv.vjp(ops.relu, X)[1](None),
        TypeError,
        ["dy is a NoneType", "must return from its pullback"],
    ),
    "half a padding pair": (lambda: ops.conv(X, W, padding=((1, 2), 3)), ValueError, ["(before, after) pairs"]),
    "unknown padding": (lambda: ops.conv(X, W, padding="full"), ValueError, ["'full' is not known", "'same_lower'"]),
    "causal in 2-D": (lambda: ops.conv(X, W, padding="causal"), ValueError, ["one spatial axis"]),
    "output padding": (
        lambda: ops.conv_transpose(X, W[..., :6], output_padding=1),
        ValueError,
        ["smaller than the stride"],
    ),
    "integers": (
        lambda: ops.conv(X.astype("int64"), W.astype("int64")),
        TypeError,
        ["not int64", "x.astype('float32')"],
    ),
    "two dtypes": (lambda: ops.conv(X, W.astype("float64")), TypeError, ["share library, device and dtype", "float64"]),
    "two libraries": (lambda: ops.conv(X, of("array_api_strict")), TypeError, ["numpy on cpu", "array_api_strict"]),
    "two devices": (
        lambda: ops.conv(of("array_api_strict"), of("array_api_strict:device1")),
        TypeError,
        ["share library, device", "device1"],
    ),
    "no x": (lambda: ops.conv(None, W), TypeError, ["conv: x is a NoneType", "xpconv.asarray"]),
    "no w": (lambda: ops.conv(X, None), TypeError, ["conv: w is a NoneType"]),
    "no target": (lambda: ops.mse(X, None), TypeError, ["mse: target is a NoneType"]),
    "no labels": (lambda: ops.softmax_cross_entropy(X[0, 0], None), TypeError, ["labels is a NoneType"]),
    "a list": (lambda: ops.relu([1.0, 2.0]), TypeError, ["x is a list", "xpconv.asarray"]),
    "masked array": (lambda: ops.relu(np.ma.ones(3)), TypeError, ["MaskedArray", "x.filled(0)"]),
    "matrix": (lambda: ops.relu(np.ones((2, 2)).view(np.matrix)), TypeError, ["matrix", "np.asarray(x)"]),
    "torch tensor that wants gradients": (
        lambda: ops.relu(of("torch").requires_grad_()),
        TypeError,
        ["requires_grad", "exchange.torch.function", "detach"],
    ),
    "dy of another shape": (lambda: xpconv.vjp(ops.relu, X)[1](X[:1]), ValueError, ["dy must have the shape", "N=1"]),
    "dy of another dtype": (lambda: xpconv.vjp(ops.relu, X)[1](X.astype("float64")), TypeError, ["dtype", "float64"]),
    "needs of another length": (
        lambda: xpconv.vjp(ops.conv, X, W, needs=(True,)),
        ValueError,
        ["an entry for each of 2 arrays (x, w)", "needs=(True,)"],
    ),
    "not an op": (lambda: xpconv.vjp(np.tanh, X), TypeError, ["'tanh' is not an op", "xpconv.ops"]),
    "explain what is no op": (lambda: xpconv.explain(np.tanh, X), TypeError, ["explain: 'tanh' is not an op"]),
    "unknown backend": (
        lambda: xpconv.use_backend("numpi"),
        xpconv.BackendError,
        ["'numpi'", "numpy", "cupy", "torch"],
    ),
    "NumPy on a GPU": (lambda: xpconv.use_backend("numpy:1"), xpconv.BackendError, ["no device '1'"]),
    "device that is not there": (
        lambda: xpconv.use_backend("array_api_strict:device9"),
        xpconv.BackendError,
        ["'device9'", "device1"],
    ),
    "unknown engine": (lambda: xpconv.use_engine("warp"), ValueError, ["'warp'", "portable", "reference"]),
    "unknown precision": (lambda: xpconv.precision("half"), ValueError, ["'ieee' or 'fast'", "'half'"]),
    "no workspace": (lambda: xpconv.workspace_limit(0), ValueError, ["positive number of bytes"]),
    "neither true nor false": (lambda: xpconv.deterministic("maybe"), TypeError, ["True or False"]),
    "a word for false": (
        lambda: xpconv.autotune("False"),
        TypeError,
        ["autotune: value must be True or False", "'False'"],
    ),
    "threads as text": (lambda: xpconv.set_num_threads("2"), TypeError, ["n must be an integer, not '2'"]),
}


@pytest.mark.parametrize("name", BAD)
def test_the_message_says_what_is_wrong(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


# What else each op with flags needs.
FLAGGED = {
    ops.max_pool: (X, 2),
    ops.avg_pool: (X, 2),
    ops.lp_pool: (X, 2),
    ops.batch_norm: (X, None, None),
    ops.resize: (X, 8),
}


@pytest.mark.parametrize("op", [op for op in OPS if flags_of(op)], ids=lambda op: op.__name__)
def test_flags_of_ops_are_true_or_false(op):
    for name in flags_of(op):
        for value in (1, "no", None):
            rule = rf"^{op.__name__}: {name} must be True or False\.\n  given: {name}={value!r}"
            with pytest.raises(TypeError, match=rule):
                op(*FLAGGED[op], **{name: value})
        assert xpconv.vjp(op, *FLAGGED[op], **{name: np.False_})


def test_a_backend_without_its_package_names_the_install_line(monkeypatch):
    if not missing("cupy"):
        pytest.skip("CuPy is here")
    with pytest.raises(xpconv.BackendError, match=r"pip install 'xpconv\[cuda1[23]\]'|no usable CUDA device"):
        xpconv.use_backend("cupy")


def test_a_bad_environment_variable_is_named():
    import os
    import subprocess
    import sys

    code = "import numpy, xpconv; xpconv.ops.relu(numpy.ones(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "XPCONV_ENGINE": "warp"}
    )
    assert done.returncode != 0
    assert "environment variable XPCONV_ENGINE='warp'" in done.stderr
