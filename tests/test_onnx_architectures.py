"""The nine architectures of ONNX's backend suite with random weights, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as runtime
from onnx import numpy_helper

from xpconv import exchange

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
)
BOUND = 1e-5  # of the largest score: a hundred layers of float32, in another order of summation


def drawn(name: str):
    """The whole graph without its softmax, with drawn weights: in the package they are fills of one number."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {t.name: tuple(numpy_helper.to_array(t).tolist()) for t in model.graph.initializer}
    kept, weights = [], []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            weights.append(numpy_helper.from_array(_draw(rng, shapes[node.input[0]]), node.output[0]))
        elif node.op_type != "Softmax":
            kept.append(node)
        else:
            model.graph.output[0].name = node.input[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(weights)
    known = {t.name for t in model.graph.initializer}
    inputs = [port for port in model.graph.input if port.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = 8  # from version 4 on, constants need not be inputs
    return model


def _draw(rng, shape):
    """He's normal weights; numbers about 1 for what is a vector: biases, scales, variances."""
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    some = rng.standard_normal(999_983, dtype=np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    return np.resize(some, shape)  # over and over: 140 million take seconds to draw


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_beside_onnxruntime(name):
    model = drawn(name)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=np.float32)
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    del session
    (y,) = exchange.onnx.load(model)(x)
    assert y.shape == expected.shape
    assert np.abs(expected).max() > 0
    error = np.abs(y - expected).max() / np.abs(expected).max()
    print(f"{name}: {error:.2e}")
    assert error <= BOUND
