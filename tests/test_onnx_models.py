"""Loading ONNX models: calls, layouts, backends, messages."""

from __future__ import annotations

import numpy as np
import pytest
from nets import BACKENDS, on

pytest.importorskip("onnx")

from onnx import helper, numpy_helper, parser

import xpconv
from xpconv import exchange
from xpconv.exchange.onnx import UnsupportedError, running
from xpconv.exchange.onnx.backend import Backend

HEAD = '<ir_version: 10, opset_import: ["": 21]>'
CNN = f"""{HEAD} net (float[N, 3, H, W] image) => (float[N, 5] scores, float[N, 4, P, Q] features)
<float[4, 3, 3, 3] w, float[4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var,
 float[4, 1, 1] shift, float[5, 4] v, float[5] c>
{{
    conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (image, w, b)
    rectified = Relu (conv)
    normed = BatchNormalization (rectified, gamma, beta, mean, var)
    shifted = Add (normed, shift)
    side = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (shifted)
    both = Concat <axis = 1> (shifted, side)
    first, second = Split <axis = 1, num_outputs = 2> (both)
    features = Mul (first, second)
    pooled = GlobalAveragePool (features)
    shape = Shape <start = 0, end = 1> (pooled)
    rest = Constant <value_ints = [-1]> ()
    target = Concat <axis = 0> (shape, rest)
    flat = Reshape (pooled, target)
    scores = Gemm <transB = 1> (flat, v, c)
}}"""


def cnn():
    """A small network with every kind of operator order in it."""
    model = parser.parse_model(CNN)
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "v": (5, 4), "c": (5,), "shift": (4, 1, 1)}
    for name in ("w", "b", "gamma", "beta", "mean", "var", "shift", "v", "c"):
        value = rng.uniform(0.5, 1.5, shapes.get(name, (4,))).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def image(n=2, size=9):
    return np.random.default_rng(1).standard_normal((n, 3, size, size), dtype=np.float32)


def expected(x):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(cnn()).run(None, {"image": x})


def model_of(text: str, **constants: np.ndarray):
    model = parser.parse_model(f"{HEAD} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_runs_where_its_inputs_live(backend):
    x = image()
    with on(backend):
        given = xpconv.asarray(x)
        outputs = exchange.onnx.load(cnn())(given)
        for y, reference in zip(outputs, expected(x), strict=True):
            assert type(y) is type(given)
            assert y.device == given.device
            np.testing.assert_allclose(xpconv.to_numpy(y), reference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_that_are_outputs_come_back_where_the_inputs_are(backend):
    model = model_of("g (float[N, 3] x) => (int64[2] shape) { shape = Shape (x) }")
    with on(backend):
        x = xpconv.asarray(np.zeros((4, 3), np.float32))
        (shape,) = exchange.onnx.load(model)(x)
        assert type(shape) is type(x)
        assert xpconv.to_numpy(shape).tolist() == [4, 3]


def test_inputs_by_position_and_name_and_outputs_by_both():
    model, x = exchange.onnx.load(cnn()), image()
    outputs = model(x)
    assert isinstance(outputs, tuple)
    assert model.output_names == ("scores", "features")
    assert outputs["scores"] is outputs[0]
    with pytest.raises(KeyError, match="no output is called 'logits'"):
        outputs["logits"]
    assert np.array_equal(model(image=x)["features"], outputs[1])
    assert (model.inputs[0].name, model.inputs[0].dtype, model.inputs[0].shape) == (
        "image",
        "float32",
        ("N", 3, "H", "W"),
    )
    assert repr(model).startswith("Model(image (N, 3, H, W) float32 -> scores, features")


def test_an_input_with_a_value_may_be_left_out():
    model = model_of("g (float[2] x, float[2] y) => (float[2] z) { z = Add (x, y) }", y=np.ones(2, np.float32))
    run, x = exchange.onnx.load(model), np.zeros(2, np.float32)
    assert run(x)[0].tolist() == [1, 1]
    assert run(x, np.full(2, 5, np.float32))[0].tolist() == [5, 5]
    assert run(x)[0].tolist() == [1, 1]


def test_weights_may_be_given_as_inputs():
    """Older exporters list them so; they are turned at load all the same, and replaced for one call where given."""
    text = "g (float[1, 2, 3, 3] x, float[4, 2, 3, 3] w) => (float[1, 4, 1, 1] y) { y = Conv (x, w) }"
    w, x = image(4, 3)[:, :2], image(1, 3)[:, :2]
    model = exchange.onnx.load(model_of(text, w=w))
    expected = np.einsum("nchw,ochw->no", x, w)
    for y, scale in ((model(x), 1), (model(x, 2 * w), 2), (model(x), 1)):
        np.testing.assert_allclose(y[0][..., 0, 0], scale * expected, rtol=1e-4, atol=1e-5)


def test_before_version_4_of_the_format_constants_are_no_inputs():
    model = model_of("g (float[2] x, float[2] y) => (float[2] z) { z = Add (x, y) }", y=np.ones(2, np.float32))
    model.ir_version = 3
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 8))
    assert [port.name for port in exchange.onnx.load(model).inputs] == ["x"]


@pytest.mark.parametrize(
    ("args", "named", "error", "said"),
    [
        ((), {}, TypeError, "image is missing"),
        ((image(), image()), {}, TypeError, "2 arrays for 1 inputs"),
        ((image(),), {"image": image()}, TypeError, "image is given twice"),
        ((image(),), {"mask": image()}, TypeError, "mask is not an input"),
        ((image().astype("float64"),), {}, TypeError, "'image' must be of float32"),
        ((image()[:, :2],), {}, ValueError, "'image' must be of shape \\(N, 3, H, W\\)"),
        ((np.moveaxis(image(), 1, -1),), {}, ValueError, "channels first, \\(N, C, .*to_nchw"),
        ((image()[0],), {}, ValueError, "must be of shape"),
        ((image().tolist(),), {}, TypeError, "image is a list"),
    ],
)
def test_wrong_inputs_are_told(args, named, error, said):
    with pytest.raises(error, match=said):
        exchange.onnx.load(cnn())(*args, **named)


def test_inputs_of_two_libraries_are_refused():
    import array_api_strict

    model = exchange.onnx.load(model_of("g (float[2] x, float[2] y) => (float[2] z) { z = Add (x, y) }"))
    x = np.ones(2, np.float32)
    with pytest.raises(TypeError, match="one library and device"):
        model(x, array_api_strict.asarray(x))


def test_an_error_inside_names_the_node():
    model = exchange.onnx.load(cnn())
    with pytest.raises(ValueError, match=r"empty|larger|hold") as raised:
        model(np.zeros((1, 3, 0, 4), np.float32))
    assert raised.value.__notes__ == ["in Conv, node 0 (-> conv), of onnx model"]


# -- what is not there -------------------------------------------------------------------------------------------------


def test_all_that_is_not_there_is_named_at_once():
    text = """g (float[N, 2] x) => (float[N, 2] y)
    {
        a = Einsum <equation = "ij->ij"> (x)
        b = Einsum <equation = "ij->ij"> (a)
        y = own.Thing (b)
    }"""
    model = model_of(text)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].name = "sum"
    with pytest.raises(UnsupportedError) as raised:
        exchange.onnx.load(model)
    assert str(raised.value).splitlines()[:3] == [
        "onnx model: the model needs what xpconv does not have.",
        "  Einsum: node 0 (-> a), node 'sum'",
        "  own.Thing: node 2 (-> y)",
    ]


def test_a_transposed_convolution_of_two_sizes_is_refused_as_it_is_loaded():
    text = """g (float[1, 2, 4, 4] x) => (float[1, 2, 9, 9] y)
    {
        y = ConvTranspose <auto_pad = "SAME_UPPER", strides = [2, 2], output_padding = [1, 1]> (x, w)
    }"""
    w = np.ones((2, 2, 3, 3), np.float32)
    with pytest.raises(UnsupportedError, match=r"ConvTranspose with auto_pad=SAME_UPPER with output_padding=\[1, 1\]"):
        exchange.onnx.load(model_of(text, w=w))
    exchange.onnx.load(model_of(text.replace("[1, 1]", "[0, 0]"), w=w))


def test_attributes_versions_and_types_are_named_too():
    text = """g (float[N, 2, 4, 4] x, bfloat16[2] half, seq(float[2]) list) => (float[N, 2, 8, 8] y)
    {
        a = MaxPool <kernel_shape = [2, 2], auto_pad = "SAME_UPPER"> (x)
        y = Resize <mode = "nearest", antialias = 1> (a, , w)
    }"""
    with pytest.raises(UnsupportedError) as raised:
        exchange.onnx.load(model_of(text, w=np.array([1, 1, 2, 2], np.float32)))
    said = str(raised.value)
    assert "dtype bfloat16: 'half'" in said
    assert "sequences: 'list'" in said
    assert "Resize with antialias=1 with mode='nearest': node 1 (-> y)" in said
    assert "MaxPool" not in said


def test_a_later_operator_set_is_refused():
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    model.opset_import[0].version = 99
    with pytest.raises((UnsupportedError, xpconv.FileError), match="99"):
        exchange.onnx.load(model)


def test_control_flow_is_refused_with_its_node():
    inner = parser.parse_graph("g () => (float[2] y) { y = Constant <value_floats = [1.0, 2.0]> () }")
    node = helper.make_node("If", ["c"], ["y"], "branch", then_branch=inner, else_branch=inner)
    ports = [helper.make_tensor_value_info("c", 9, []), helper.make_tensor_value_info("y", 1, [2])]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=10)
    model.opset_import[0].version = 21
    with pytest.raises(UnsupportedError, match="If: node 'branch'"):
        exchange.onnx.load(model)


def test_functions_of_the_model_are_inlined():
    text = """<ir_version: 10, opset_import: ["": 21, "own": 1]>
    g (float[2] x) => (float[2] y) { y = own.twice (x) }
    <opset_import: ["": 21], domain: "own"> twice (a) => (b) { b = Add (a, a) }"""
    assert exchange.onnx.load(parser.parse_model(text))(np.ones(2, np.float32))[0].tolist() == [2, 2]


# -- how it is run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def turns(monkeypatch):
    """Counts the arrays of images that are turned while a model runs."""
    counted = []
    turn = running.channels_last
    monkeypatch.setattr(running, "channels_last", lambda x: counted.append(x) or turn(x))
    return counted


def test_between_layers_nothing_is_transposed(turns):
    model, x = exchange.onnx.load(cnn()), image()
    turns.clear()
    model(x)
    assert [t.shape for t in turns if t.size > 4] == [x.shape]  # the image; and the shift of four numbers


def test_constants_are_computed_and_weights_turned_once():
    model = exchange.onnx.load(cnn())
    works, _ = model._plans[frozenset()]
    kinds = [work.task.node.op for work in works]
    assert kinds[:2] == ["Conv", "BatchNormalization"]  # the rectifier is drawn into the convolution
    assert "Constant" not in kinds
    (weights,) = (s for s in works[0].sources[1:2])
    assert weights.host.shape == (3, 3, 3, 4)
    model(image())
    placed = weights.on(xpconv.backend.get("numpy"))
    assert weights.on(xpconv.backend.get("numpy")) is placed


def test_an_activation_that_is_not_alone_stays():
    text = """g (float[1, 1, 3, 3] x) => (float[1, 1, 3, 3] y, float[1, 1, 3, 3] a)
    { a = Conv (x, w) y = Relu (a) }"""
    model = exchange.onnx.load(model_of(text, w=-np.ones((1, 1, 1, 1), np.float32)))
    y, a = model(np.ones((1, 1, 3, 3), np.float32))
    assert (y.max(), a.max()) == (0, -1)


def test_of_two_activations_both_are_applied():
    text = "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) { a = Conv (x, w) b = Relu (a) y = Sigmoid (b) }"
    model = exchange.onnx.load(model_of(text, w=-np.ones((1, 1, 1, 1), np.float32)))
    assert model(np.ones((1, 1, 2, 2), np.float32))[0].tolist() == [[[[0.5, 0.5], [0.5, 0.5]]]]


def test_what_is_known_at_load_may_be_an_output():
    text = (
        "g (float[1] x) => (float[2] y, float[1] x2) { y = Constant <value_floats = [1.0, 2.0]> () x2 = Identity (x) }"
    )
    model = exchange.onnx.load(model_of(text))
    for _ in range(2):
        y, _ = model(np.ones(1, np.float32))
        assert y.tolist() == [1, 2]
        y[:] = 0  # it is the caller's own


# -- ONNX's own interface ----------------------------------------------------------------------------------------------


def test_backend_runs_models_and_nodes():
    x = image()
    outputs = Backend.run_model(cnn(), [x])
    assert np.array_equal(outputs[0], outputs["scores"])
    assert np.array_equal(Backend.prepare(cnn()).run({"image": x})[1], outputs.features)
    node = helper.make_node("Add", ["a", "a"], ["b"])
    assert Backend.run_node(node, [np.ones(2, np.float32)] * 2)[0].tolist() == [2, 2]
    node = helper.make_node("Softmax", ["a"], ["b"])
    shape = (2, 2, 2)
    assert Backend.run_node(node, [np.ones(shape, np.float32)], opset_version=11)[0].max() == 0.25


def test_backend_tells_devices():
    assert Backend.supports_device("CPU")
    assert not Backend.supports_device("TPU")
    if not Backend.supports_device("CUDA"):
        with pytest.raises(xpconv.BackendError, match=r"cupy|CuPy"):
            Backend.prepare(cnn(), "CUDA")


def test_backend_tells_what_is_compatible():
    assert Backend.is_compatible(cnn())
    text = 'g (float[2, 2] x) => (float[2, 2] y) { y = Einsum <equation = "ij->ij"> (x) }'
    assert not Backend.is_compatible(model_of(text))


@pytest.mark.parametrize(
    ("op", "expected"),
    [("ReduceMean", [2, 5]), ("ReduceL2", [3, 8]), ("ReduceLogSum", [1, 2]), ("ReduceLogSumExp", [3, 6])],
)
def test_reductions_of_integers_stay_integers(op, expected):
    body = f"axes = Constant <value = int64[1] {{1}}> ()  y = {op} (x, axes)"
    model = parser.parse_model(f"{HEAD} g (int32[2, 3] x) => (int32[2, 1] y) {{ {body} }}")
    (y,) = exchange.onnx.load(model)(np.array([[1, 2, 3], [4, 5, 6]], np.int32))
    assert (y.dtype, y.ravel().tolist()) == (np.int32, expected)
