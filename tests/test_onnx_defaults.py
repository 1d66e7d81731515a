"""Graphs of older exporters: weights that are inputs too, and sizes of -1 where they are open."""

from __future__ import annotations

import numpy as np
import pytest

from xpconv import exchange, ops

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def model(w):
    """A convolution and its rectifier; its weights may be given in place of those that it holds."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 2, None, "width"])
    weights = helper.make_tensor_value_info("w", TensorProto.FLOAT, w.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x, weights], [y, weights], [numpy_helper.from_array(w, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("batch", [1, 3])
def test_weights_that_are_inputs_have_defaults(batch):
    rng = np.random.default_rng(0)
    w, other = rng.normal(size=(2, 4, 2, 3, 3)).astype("float32")
    x = rng.normal(size=(batch, 2, 5, 6)).astype("float32")
    net = exchange.onnx.load(model(w))
    for given, expected in (({}, w), ({"w": other}, other), ({}, w)):
        y, returned = net(x, **given)
        z = exchange.to_nchw(ops.conv(exchange.to_nhwc(x), exchange.to_hwio(expected)))
        np.testing.assert_allclose(y, np.maximum(z, 0), atol=1e-5)
        np.testing.assert_array_equal(returned, expected)
